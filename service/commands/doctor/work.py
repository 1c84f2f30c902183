"""Checks the processes at work, and causes of delay: schedulers, workers, queues, pauses,
leases."""

from __future__ import annotations

from typing import Final

from service.commands.doctor.findings import Found, Level
from service.domain.events.event import rfc3339
from service.storage.observability.system_status import Overview
from service.storage.redis import keys
from service.storage.scheduling.leases import Kind
from service.storage.scheduling.pause import ACTIVITIES, Control

_SCHEDULER_SILENCE_MS: Final = 10_000
_STUCK_MS: Final = 60_000  # after a claim's end, until it counts as abandoned


async def scheduler(overview: Overview) -> Found:
    """Whether a scheduler runs."""
    schedulers, now = await overview.schedulers(), await overview.now_ms()
    last = max((turn for _, turn in schedulers), default=None)
    advice = "; start `coursewire scheduler`"
    if last is None:
        return [("fail", f"no scheduler has run in a week{advice}")]
    if now - last > _SCHEDULER_SILENCE_MS:
        return [("fail", f"no scheduler has looked for work since {rfc3339(last)}{advice}")]
    return [("ok", ", ".join(name for name, _ in schedulers))]


async def workers(overview: Overview) -> Found:
    """Whether a worker serves every queue."""
    found = await overview.workers()
    served = {queue for worker in found for queue in worker.queues}
    missing = [queue for queue in keys.QUEUES if queue not in served]
    if missing:
        return [("fail", f"no worker serves {', '.join(missing)}; start `coursewire worker`")]
    suspended = [worker.name for worker in found if worker.state == "suspended"]
    if suspended:
        return [("warn", f"suspended: {', '.join(suspended)}; `rq resume` starts them again")]
    processes = {(worker.host, worker.pid) for worker in found}
    return [("ok", f"{len(processes)} process{'es' if len(processes) > 1 else ''}")]


async def queues(overview: Overview) -> Found:
    """Whether jobs failed."""
    found: list[tuple[Level, str]] = [
        (
            "warn",
            (
                f"{queue.failed} jobs of {queue.name} failed in the last day; read the worker's "
                "log. The scheduler enqueues their work again"
            ),
        )
        for queue in await overview.queues()
        if queue.failed
    ]
    return found or [("ok", "no failed jobs")]


async def pauses(control: Control) -> Found:
    """Whether polling or delivery is paused."""
    found: list[tuple[Level, str]] = [
        (
            "warn",
            (
                f"{activity} has been paused since {rfc3339(since)}; `coursewire resume "
                f"{activity}` starts it again"
            ),
        )
        for activity, since in (await control.paused()).items()
    ]
    return found or [("ok", "nothing is paused")]


async def leases(overview: Overview, control: Control) -> Found:
    """Whether claims or leases block work."""
    now = await overview.now_ms()
    paused = await control.paused()
    found: list[tuple[Level, str]] = []
    names: dict[Kind, str] = {"polls": "integrations", "outboxes": "outboxes"}
    for kind, name in names.items():
        stuck = await overview.lapsed_claims(kind, before=now - _STUCK_MS)
        if stuck and ACTIVITIES[kind] not in paused:
            found.append(
                (
                    "fail",
                    (
                        f"{stuck} claims on {name} have expired and were not taken back. A "
                        "scheduler does this unless its queue is full: check scheduler and workers"
                    ),
                )
            )
        lasting = await overview.leases_without_end(kind)
        if lasting:
            found.append(
                (
                    "fail",
                    (
                        f"leases without an end hold up {', '.join(lasting[:5])}; "
                        f"`redis-cli DEL {keys.lease(kind, lasting[0])}`, and so for each"
                    ),
                )
            )
    return found or [("ok", "none is stuck")]
