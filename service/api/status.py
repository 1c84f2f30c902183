"""`/v1/status`: how the whole system is doing, in one answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from http import HTTPStatus

from litestar import Controller, get
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.api.openapi import problems, reads, version
from service.api.requests import GivenServices
from service.api.schemas import (
    QueueStatus,
    RedisStatus,
    SchedulerStatus,
    SystemStatus,
    Totals,
    WorkerStatus,
    WorkStatus,
)
from service.api.views import moment
from service.clock import now_ms
from service.domain.events import rfc3339
from service.storage.overview import Overview, Server, Work, Worker

SCHEDULER_SILENCE_MS = 10_000  # a scheduler looks for work every second
OVERDUE_MS = 60_000  # work that has been due for longer than this is not being done
_TOTALS = ("courses", "quarantined", "pending", "dead")


class StatusController(Controller):
    """Gathers what the stores know."""

    path = "/status"
    tags = ["System"]  # noqa: RUF012 - Litestar reads it as it is

    @get(
        summary="Show the state of the system",
        response_description="The state of the system",
        operation_class=reads(),
        responses=problems(HTTPStatus.UNAUTHORIZED),
    )
    async def show(self, services: GivenServices) -> SystemStatus:
        """`ok`, `degraded` with the reasons, or `down` when Redis does not answer."""
        overview = Overview(services.redis)
        try:
            server = await overview.server()
            schedulers = await overview.schedulers()
            workers = await overview.workers()
            queues = await overview.queues()
            walks = await overview.work("walks", now_ms())
            lanes = await overview.work("lanes", now_ms())
            sizes = await overview.sizes()
            _, totals = await services.counters.read()
        except (RedisConnectionError, RedisTimeoutError):
            return _down()
        last_turn = max((turn for _, turn in schedulers), default=None)
        reasons = tuple(_reasons(server, last_turn, workers, {"walk": walks, "lane": lanes}))
        return SystemStatus(
            status="degraded" if reasons else "ok",
            reasons=reasons,
            version=version(),
            time=rfc3339(now_ms()),
            redis=RedisStatus(
                up=True,
                server=server.name,
                version=server.version,
                uptime_seconds=server.uptime_seconds,
                memory_used_bytes=server.memory_used,
                memory_limit_bytes=server.memory_limit or None,
                aof_enabled=server.aof_enabled,
                aof_ok=server.aof_ok if server.aof_enabled else None,
            ),
            schedulers=[SchedulerStatus(name, rfc3339(turn)) for name, turn in schedulers],
            workers=[_worker(worker) for worker in workers],
            queues=[QueueStatus(one.name, one.queued, one.started, one.failed) for one in queues],
            walks=_work(walks),
            lanes=_work(lanes),
            totals=Totals(**sizes, **{name: totals.get(name, 0) for name in _TOTALS}),
        )


def _reasons(
    server: Server, last_turn: int | None, workers: Sequence[Worker], works: dict[str, Work]
) -> Iterator[str]:
    """Why the system is not quite well."""
    now = now_ms()
    if not server.aof_ok:
        yield "Redis cannot write its append-only file"
    if last_turn is None:
        yield "no scheduler is running"
    elif now - last_turn > SCHEDULER_SILENCE_MS:
        yield f"no scheduler has looked for work since {rfc3339(last_turn)}"
    if not workers:
        yield "no worker is running"
    for name, work in works.items():
        if work.oldest_due_at is not None and now - work.oldest_due_at > OVERDUE_MS:
            yield f"a {name} has been due since {rfc3339(work.oldest_due_at)}"


def _worker(worker: Worker) -> WorkerStatus:
    return WorkerStatus(
        name=worker.name,
        state=worker.state,
        queues=worker.queues,
        host=worker.host,
        pid=worker.pid,
        last_heartbeat_at=_heartbeat(worker.last_heartbeat),
    )


def _heartbeat(text: str | None) -> str | None:
    """RQ's time in ISO 8601, as the API shows times."""
    if text is None:
        return None
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return rfc3339(int(at.timestamp() * 1000))


def _work(work: Work) -> WorkStatus:
    return WorkStatus(
        due=work.due,
        claimed=work.claimed,
        leased=work.leased,
        oldest_due_at=moment(work.oldest_due_at),
    )


def _down() -> SystemStatus:
    return SystemStatus(
        status="down",
        reasons=("Redis does not answer",),
        version=version(),
        time=rfc3339(now_ms()),
        redis=RedisStatus(up=False),
        schedulers=[],
        workers=[],
        queues=[],
        walks=None,
        lanes=None,
        totals=None,
    )
