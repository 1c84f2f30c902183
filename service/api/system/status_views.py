"""The state of the whole system in responses."""

from __future__ import annotations

from typing import Annotated, ClassVar

from service.api.fields import samples
from service.api.fields.kinds import means
from service.api.fields.views import Timestamp, View


class RedisStatus(View, frozen=True, kw_only=True):
    """The Redis or Valkey server. `memory_limit_bytes` is null if there is no limit; `aof_ok` is
    null if the append-only file is off."""

    example: ClassVar = {
        "up": True,
        "server": "valkey",
        "version": "9.1.0",
        "uptime_seconds": 86400,
        "memory_used_bytes": 268435456,
        "memory_limit_bytes": 1073741824,
        "memory_share": 0.25,
        "eviction_policy": "noeviction",
        "persistence": "aof",
        "aof_enabled": True,
        "aof_ok": True,
    }
    up: Annotated[bool, means("whether it responds")]
    server: Annotated[str | None, means("redis or valkey")] = None
    version: Annotated[str | None, means("its version")] = None
    uptime_seconds: Annotated[int | None, means("how long it has been running")] = None
    memory_used_bytes: Annotated[int | None, means("memory in use")] = None
    memory_limit_bytes: Annotated[int | None, means("its limit; null: none")] = None
    memory_share: Annotated[
        float | None, means("the part of the limit in use, 0 to 1; null: no limit")
    ] = None
    eviction_policy: Annotated[str | None, means("its eviction policy; must be noeviction")] = None
    persistence: Annotated[
        str | None,
        means("aof, snapshots, none, or unknown if the server does not report snapshots"),
    ] = None
    aof_enabled: Annotated[bool | None, means("whether it keeps an append-only file")] = None
    aof_ok: Annotated[
        bool | None, means("whether the last write to it succeeded; null: there is none")
    ] = None


class SchedulerStatus(View, frozen=True, kw_only=True):
    """A scheduler and the time of its last turn."""

    example: ClassVar = {"name": "scheduler-1", "last_turn_at": samples.AT}
    name: Annotated[str, means("its name")]
    last_turn_at: Annotated[Timestamp, means("when it last looked for work")]


class WorkerStatus(View, frozen=True, kw_only=True):
    """A worker process as RQ knows it."""

    example: ClassVar = {
        "name": "worker-1",
        "state": "busy",
        "queues": ["coursewire-poll", "coursewire-deliver"],
        "host": "host-1",
        "pid": 4711,
        "last_heartbeat_at": samples.AT,
    }
    name: Annotated[str, means("its name")]
    state: Annotated[str, means("busy, idle, suspended or started")]
    queues: Annotated[tuple[str, ...], means("the queues it serves, the most urgent first")]
    host: Annotated[str | None, means("the host name")]
    pid: Annotated[int | None, means("its process id on that host")]
    last_heartbeat_at: Annotated[Timestamp | None, means("the time of its last heartbeat")]


class QueueStatus(View, frozen=True, kw_only=True):
    """An RQ queue: waiting jobs, running jobs, and jobs that failed in the last day."""

    example: ClassVar = {"name": "coursewire-poll", "queued": 1, "started": 2, "failed": 0}
    name: Annotated[str, means("its name")]
    queued: Annotated[int, means("jobs that wait")]
    started: Annotated[int, means("jobs that are running")]
    failed: Annotated[int, means("jobs that failed in the last day")]


class WorkStatus(View, frozen=True, kw_only=True):
    """Polls or outboxes: due and not claimed, claimed, and claimed under a worker's lease. Outboxes
    that are held back, such as parked ones between probes, count as claimed."""

    example: ClassVar = {"due": 0, "claimed": 3, "leased": 2, "oldest_due_at": None}
    due: Annotated[int, means("due and not claimed")]
    claimed: Annotated[int, means("claimed for a worker, or held back for a while")]
    leased: Annotated[int, means("of the claimed, those under a worker's lease")]
    oldest_due_at: Annotated[Timestamp | None, means("since when the oldest has been due")]


class LatenessStatus(View, frozen=True, kw_only=True):
    """How late changes are. Receipts cover the last 15 minutes or slightly more, or the time since
    Redis started; percentiles are estimated from a histogram."""

    example: ClassVar = {
        "window_seconds": 1080,
        "receipts": 312,
        "receipt_p50_seconds": 0.4,
        "receipt_p99_seconds": 2.3,
        "oldest_pending_at": None,
        "oldest_poll_at": samples.AT,
        "oldest_full_poll_at": samples.AT,
    }
    window_seconds: Annotated[int, means("the time that the receipts were counted in")]
    receipts: Annotated[int, means("deliveries that were received in this time")]
    receipt_p50_seconds: Annotated[
        float | None, means("the median time from detection to receipt; null: none")
    ]
    receipt_p99_seconds: Annotated[
        float | None,
        means("the 99th percentile of the time from detection to receipt; null: none"),
    ]
    oldest_pending_at: Annotated[
        Timestamp | None,
        means("when the oldest pending event happened, without paused and disabled subscriptions"),
    ]
    oldest_poll_at: Annotated[
        Timestamp | None,
        means(
            "the oldest of the times at which the polled integrations last completed a poll; for "
            "an integration without a complete poll, the time at which its polling started"
        ),
    ]
    oldest_full_poll_at: Annotated[Timestamp | None, means("the same, for full polls only")]


class Paused(View, frozen=True, kw_only=True):
    """The work that was stopped over the API, and the time."""

    example: ClassVar = {"polling": samples.AT, "delivery": None}
    polling: Annotated[Timestamp | None, means("since when polling is paused; null: not paused")]
    delivery: Annotated[Timestamp | None, means("since when delivery is paused; null: not paused")]


class IntegrationStates(View, frozen=True, kw_only=True):
    """The number of integrations by state. Those in `error` and `review` need attention."""

    example: ClassVar = {"active": 12, "pending": 1, "paused": 0, "error": 1, "review": 0}
    active: Annotated[int, means("polled, their baselines complete")]
    pending: Annotated[int, means("polled, their baselines not complete")]
    paused: Annotated[int, means("paused by a person")]
    error: Annotated[int, means("need an operator")]
    review: Annotated[int, means("polled, with changes held for review")]


class SubscriptionStates(View, frozen=True, kw_only=True):
    """The number of subscriptions by state. Those that are `disabled`, `parked` and `failing` need
    attention."""

    example: ClassVar = {"active": 3, "failing": 1, "parked": 0, "paused": 0, "disabled": 1}
    active: Annotated[int, means("sent to, the last attempt delivered or none made yet")]
    failing: Annotated[int, means("sent to, the last attempt failed; active in lists")]
    parked: Annotated[
        int, means("parked: only probes are sent, because the receiver keeps failing")
    ]
    paused: Annotated[int, means("paused by a person")]
    disabled: Annotated[int, means("disabled until a person resumes them")]


class Totals(View, frozen=True, kw_only=True):
    """Totals."""

    example: ClassVar = {
        "credentials": 2,
        "integrations": 14,
        "subscriptions": 5,
        "courses": 8400,
        "quarantined": 1,
        "held": 0,
        "events": 1250,
        "pending": 3,
        "dead": 0,
    }
    credentials: Annotated[int, means("credentials")]
    integrations: Annotated[int, means("integrations")]
    subscriptions: Annotated[int, means("subscriptions")]
    courses: Annotated[int, means("live courses")]
    quarantined: Annotated[int, means("quarantined courses")]
    held: Annotated[int, means("changes that wait for a decision on them")]
    events: Annotated[int, means("events in the log")]
    pending: Annotated[int, means("events not yet delivered, over all subscriptions")]
    dead: Annotated[int, means("dead deliveries that are still listed, over all subscriptions")]


class SystemStatus(View, frozen=True, kw_only=True):
    """The state of the whole system; `reasons` explains any `status` other than `ok`. If `status`
    is `down`, fields that are read from Redis are null or empty."""

    example: ClassVar = {
        "status": "ok",
        "reasons": [],
        "version": "0.1.0",
        "time": samples.AT,
        "redis": RedisStatus.example,
        "schedulers": [SchedulerStatus.example],
        "workers": [WorkerStatus.example],
        "queues": [QueueStatus.example],
        "polls": WorkStatus.example,
        "outboxes": WorkStatus.example,
        "lateness": LatenessStatus.example,
        "paused": {"polling": None, "delivery": None},
        "integrations": IntegrationStates.example,
        "subscriptions": SubscriptionStates.example,
        "totals": Totals.example,
    }
    status: Annotated[str, means("ok, degraded or down")]
    reasons: Annotated[tuple[str, ...], means("the reasons why the status is not ok")]
    version: Annotated[str, means("the version of this service")]
    time: Annotated[Timestamp, means("the time of this response")]
    redis: Annotated[RedisStatus, means("the Redis or Valkey server")]
    schedulers: Annotated[list[SchedulerStatus], means("the running schedulers")]
    workers: Annotated[list[WorkerStatus], means("the worker processes")]
    queues: Annotated[list[QueueStatus], means("the job queues")]
    polls: Annotated[WorkStatus | None, means("the state of polls")]
    outboxes: Annotated[WorkStatus | None, means("the state of pushes")]
    lateness: Annotated[LatenessStatus | None, means("the delays of polls and deliveries")]
    paused: Annotated[Paused | None, means("the paused activities, with the time of each pause")]
    integrations: Annotated[IntegrationStates | None, means("the number of integrations by state")]
    subscriptions: Annotated[
        SubscriptionStates | None, means("the number of subscriptions by state")
    ]
    totals: Annotated[Totals | None, means("totals")]
