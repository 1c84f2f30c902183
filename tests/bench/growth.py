"""Courses a second of full polls that find nothing changed, by 1, 2 and 4 worker processes.

Several integrations are asked for a full poll at one time, over HTTP, from an upstream in a process
of its own. That, the server and the workers share the machine's cores.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from statistics import median
from typing import Any

from service.bootstrap import Services
from service.clock import now_ms
from service.domain.polling.integration import Credential, Integration, PollRecord
from service.ids import new_id
from tests.bench import report
from tests.bench.command import Options, Several, benchmark, option
from tests.bench.processes import Child, child
from tests.bench.source import open_fresh, workers
from workers.dispatch.dispatcher import Dispatcher

_PATIENCE_SECONDS = 120.0
_LOOK_SECONDS = 0.05


@benchmark
@option("--integrations", default=8)
@option("--courses", default=10_000, help="of each")
@option("--rounds", default=3)
@option("--workers", type=Several(int), default=[1, 2, 4], help="processes")
async def run(options: Options) -> None:
    """Measures and reports."""
    async with AsyncExitStack() as stack:
        settings, services, dispatcher = await open_fresh(stack)
        upstream = await stack.enter_async_context(
            child("tests.bench.upstream", "--courses", str(options.courses))
        )
        base_url = f"http://127.0.0.1:{await upstream.hear()}/v1"
        ids = [await register(services, base_url, n) for n in range(options.integrations)]
        expected = options.integrations * options.courses
        rounds: dict[int, list[tuple[float, float]]] = {count: [] for count in options.workers}
        for number in range(-1, options.rounds):
            for count, measured in rounds.items():
                async with workers(settings, count) as processes:
                    # The first full poll is the baseline; of each start, the first is for warming
                    # up.
                    await _full_poll(services, dispatcher, ids, processes)
                    seconds, cpu = await _full_poll(services, dispatcher, ids, processes, expected)
                if number >= 0:
                    measured.append((expected / seconds, cpu / expected * 1e6))
        server = await report.server_version(services.redis)
    results = {
        "integrations": options.integrations,
        "courses": options.courses,
        "rounds": options.rounds,
        "by_worker_processes": {
            str(count): {
                "courses_per_second": round(median(rate for rate, _ in measured)),
                "least": round(min(rate for rate, _ in measured)),
                "most": round(max(rate for rate, _ in measured)),
                "cpu_us_per_record": round(median(cpu for _, cpu in measured), 2),
            }
            for count, measured in rounds.items()
        },
    }
    _show(results)
    report.tell("growth", server, results)


async def register(services: Services, base_url: str, number: int) -> str:
    """An integration with a credential of its own, which polls when it is asked to."""
    now = now_ms()
    credential = Credential(
        id=new_id("cred"), name=f"{number}", base_url=base_url, created_at=now, updated_at=now
    )
    await services.credentials.create(credential, f"key-{number}")
    integration = Integration(
        id=new_id("int"),
        name=f"{number}",
        upstream_id=f"workday:{number}",
        credential_id=credential.id,
        created_at=now,
        updated_at=now,
        delta_interval_seconds=86_400,
    )
    await services.integrations.create(integration)
    return integration.id


async def _full_poll(
    services: Services,
    dispatcher: Dispatcher,
    ids: list[str],
    processes: list[Child],
    expected: int | None = None,
) -> tuple[float, float]:
    """Seconds that a full poll of all took, and processor seconds of the workers. Raises
    AssertionError unless, where so many are `expected`, all courses were found unchanged."""
    cpu, begun, since = sum(one.cpu_seconds() for one in processes), time.perf_counter(), now_ms()
    asked = [await services.integrations.request_poll(one, "full", now_ms()) for one in ids]
    await dispatcher.dispatch("polls")
    found = await asyncio.gather(
        *(completed(services, one, poll.id) for one, poll in zip(ids, asked, strict=True))
    )
    took = time.perf_counter() - begun
    spent = sum(one.cpu_seconds() for one in processes) - cpu
    unchanged = sum(one.verdicts.get("unchanged", 0) for one in found)
    if expected is not None and unchanged != expected:
        raise AssertionError(f"not the full poll that was to be measured: {found}")
    ended = max(one.finished_at or 0 for one in found)
    return min(took, (ended - since) / 1000), spent


async def completed(
    services: Services, integration_id: str, poll_id: str, patience: float = _PATIENCE_SECONDS
) -> PollRecord:
    """A poll, once it has completed."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        poll = await services.integrations.get_poll(integration_id, poll_id)
        if poll.state == "completed":
            return poll
        if poll.state == "failed":
            break
        await asyncio.sleep(_LOOK_SECONDS)
    raise AssertionError(f"a poll that does not complete: {poll}")


def _show(results: dict[str, Any]) -> None:
    report.show(
        f"growth: full polls of {results['integrations']} integrations with {results['courses']} "
        f"unchanged courses each, over HTTP; medians of {results['rounds']} rounds",
        ("worker processes", "courses/s", "least", "most", "workers' CPU µs per record"),
        [
            (count, *(str(value) for value in measured.values()))
            for count, measured in results["by_worker_processes"].items()
        ],
    )
