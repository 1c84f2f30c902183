"""`/v1/status`, `/v1/pause` and `/v1/resume`: the state of the whole system, and stopping it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, ClassVar

from litestar import Controller, get, post
from litestar.params import JSONBody
from msgspec import UNSET, UnsetType
from redis.exceptions import BusyLoadingError, NoPermissionError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.api.access.audit_trail import ACTION
from service.api.access.route_guards import ADMINS, READERS
from service.api.fields.kinds import means, one_of
from service.api.fields.readers import Fields
from service.api.fields.views import moment
from service.api.http.requests import GivenServices
from service.api.http.version import version
from service.api.system.status_views import (
    IntegrationStates,
    LatenessStatus,
    Paused,
    QueueStatus,
    RedisStatus,
    SchedulerStatus,
    SubscriptionStates,
    SystemStatus,
    Totals,
    WorkerStatus,
    WorkStatus,
)
from service.bootstrap import Services
from service.clock import now_ms
from service.domain.events.event import rfc3339
from service.domain.observability.metrics import OUTBOX_STATES
from service.domain.polling.integration import IntegrationState
from service.storage.observability.lateness import LatenessStore
from service.storage.observability.system_status import Overview, Work, Worker
from service.storage.redis.client import NotServingError
from service.storage.redis.memory import MEMORY_SHARE
from service.storage.redis.server_fitness import (
    Server,
    eviction_fault,
    persistence_fault,
    replication_fault,
)
from service.storage.scheduling.pause import ACTIVITIES, Activity

SCHEDULER_SILENCE_MS = 10_000  # a scheduler checks for due work every second
OVERDUE_MS = 60_000  # work that is due for longer is delayed
_TOTALS = ("courses", "quarantined", "held", "pending", "dead")


class PauseRequest(Fields, frozen=True, kw_only=True):
    """The kind of work to stop."""

    examples: ClassVar = {"polling": ("Stop requests to the upstream", {"what": "polling"})}
    what: Annotated[
        Annotated[Activity, one_of(ACTIVITIES.values())] | UnsetType,
        means("`polling` the upstreams or `delivery` to subscribers; both if left out"),
    ] = UNSET


class ResumeRequest(PauseRequest, frozen=True, kw_only=True):
    """The kind of work to start."""

    examples: ClassVar = {"polling": ("Resume polling", {"what": "polling"})}


_BOTH, _BOTH_AGAIN = PauseRequest(), ResumeRequest()  # for an empty body


class StatusController(Controller):
    """Reads the state from the stores."""

    path = "/status"
    tags = ["System"]  # noqa: RUF012 - Litestar reads it as it is

    @get(
        guards=[READERS],
        operation_id="showStatus",
        summary="Show the state of the system",
        response_description="The state of the system",
    )
    async def show(self, services: GivenServices) -> SystemStatus:
        """Returns `ok`, `degraded` with the reasons, or `down` if Redis cannot be used."""
        overview = Overview(services.redis)
        try:
            if (fault := await services.rights.fault()) is not None:
                return _down(fault)
            server = await overview.server()
            now = await overview.now_ms()
            schedulers = await overview.schedulers()
            workers = await overview.workers()
            queues = await overview.queues()
            polls = await overview.work("polls", now)
            outboxes = await overview.work("outboxes", now)
            sizes = await overview.sizes()
            paused = await services.control.paused()
            _, totals = await services.counters.read()
            lateness = await LatenessStore(
                services.redis, services.counters, services.history
            ).read(now, server.uptime_seconds, pending=totals.get("pending", 0) > 0)
        except BusyLoadingError:
            return _down("Redis is still loading its data")
        except (NotServingError, NoPermissionError) as error:
            return _down(f"Redis returned an error: {error}")
        except (RedisConnectionError, RedisTimeoutError):
            return _down("Redis does not answer")
        last_turn = max((turn for _, turn in schedulers), default=None)
        reasons = (
            *_server_reasons(server),
            *_part_reasons(last_turn, workers, now),
            *_work_reasons({"polling": polls, "delivery": outboxes}, paused, now),
        )
        return SystemStatus(
            status="degraded" if reasons else "ok",
            reasons=reasons,
            version=version(),
            time=rfc3339(now_ms()),
            redis=RedisStatus.show(
                server,
                up=True,
                server=server.name,
                memory_used_bytes=server.memory_used,
                memory_limit_bytes=server.memory_limit or None,
                eviction_policy=server.eviction_policy or None,
                aof_ok=server.aof_ok if server.aof_enabled else None,
            ),
            schedulers=[
                SchedulerStatus(name=name, last_turn_at=rfc3339(turn)) for name, turn in schedulers
            ],
            workers=[
                WorkerStatus.show(one, last_heartbeat_at=_heartbeat(one.last_heartbeat))
                for one in workers
            ],
            queues=[QueueStatus.show(one) for one in queues],
            polls=WorkStatus.show(polls),
            outboxes=WorkStatus.show(outboxes),
            lateness=LatenessStatus.show(lateness),
            paused=_paused(paused),
            integrations=IntegrationStates(
                **{state.value: totals.get(f"state:{state}", 0) for state in IntegrationState}
            ),
            subscriptions=SubscriptionStates(
                **{state: totals.get(f"outbox:{state}", 0) for state in OUTBOX_STATES}
            ),
            totals=Totals(**sizes, **{name: totals.get(name, 0) for name in _TOTALS}),
        )


class ControlController(Controller):
    """Stops and starts polling and delivery."""

    tags = ["System"]  # noqa: RUF012 - Litestar reads it as it is

    @post(
        "/pause",
        status_code=HTTPStatus.OK,
        guards=[ADMINS],
        operation_id="pause",
        summary="Stop polling or delivery",
        opt={ACTION: "service.paused"},
        response_description="The paused activities",
    )
    async def pause(self, services: GivenServices, data: JSONBody[PauseRequest] = _BOTH) -> Paused:
        """No work starts, and running work stops at its next step: a poll after its current page or
        request by id, an outbox after its attempts in flight. After the pause, polls continue.
        Outboxes queue events during the pause. A pending delivery becomes dead when the retention
        of its event ends."""
        await services.control.pause(*_activities(data))
        return await _now_paused(services)

    @post(
        "/resume",
        status_code=HTTPStatus.OK,
        guards=[ADMINS],
        operation_id="resume",
        summary="Start polling or delivery again",
        opt={ACTION: "service.resumed"},
        response_description="The paused activities",
    )
    async def resume(
        self, services: GivenServices, data: JSONBody[ResumeRequest] = _BOTH_AGAIN
    ) -> Paused:
        """Work that became due during the pause starts at once."""
        await services.control.resume(*_activities(data))
        return await _now_paused(services)


def _activities(data: PauseRequest) -> Sequence[Activity]:
    return [data.what] if data.what else list(ACTIVITIES.values())


async def _now_paused(services: Services) -> Paused:
    return _paused(await services.control.paused())


def _paused(paused: Mapping[Activity, int]) -> Paused:
    return Paused(polling=moment(paused.get("polling")), delivery=moment(paused.get("delivery")))


def _server_reasons(server: Server) -> Iterator[str]:
    """The faults of the server."""
    for fault in (eviction_fault(server), replication_fault(server)):
        if fault is not None:
            yield fault
    # Snapshots alone may be intended; `doctor` reports them.
    loss = None if server.persistence == "snapshots" else persistence_fault(server)
    if loss is not None:
        yield loss
    share = server.memory_share
    if share is not None and share > MEMORY_SHARE:
        yield (
            f"Redis uses {share:.0%} of its memory limit; polls wait until it is below "
            f"{MEMORY_SHARE:.0%}"
        )


def _part_reasons(last_turn: int | None, workers: Sequence[Worker], now: int) -> Iterator[str]:
    """The missing parts."""
    if last_turn is None:
        yield "no scheduler is running"
    elif now - last_turn > SCHEDULER_SILENCE_MS:
        yield f"no scheduler has looked for work since {rfc3339(last_turn)}"
    if not workers:
        yield "no worker is running"


def _work_reasons(
    works: Mapping[Activity, Work], paused: Mapping[Activity, int], now: int
) -> Iterator[str]:
    """The delayed work."""
    names = {"polling": "a poll", "delivery": "an outbox"}
    for activity, work in works.items():
        if activity in paused:
            yield f"{activity} has been paused since {rfc3339(paused[activity])}"
        elif work.oldest_due_at is not None and now - work.oldest_due_at > OVERDUE_MS:
            yield f"{names[activity]} has been due since {rfc3339(work.oldest_due_at)}"


def _heartbeat(text: str | None) -> int | None:
    """RQ's time in ISO 8601, as epoch ms."""
    if text is None:
        return None
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return int(at.timestamp() * 1000)


def _down(reason: str) -> SystemStatus:
    return SystemStatus(
        status="down",
        reasons=(reason,),
        version=version(),
        time=rfc3339(now_ms()),
        redis=RedisStatus(up=False),
        schedulers=[],
        workers=[],
        queues=[],
        polls=None,
        outboxes=None,
        lateness=None,
        paused=None,
        integrations=None,
        subscriptions=None,
        totals=None,
    )
