"""What the API answers with, as typed structs."""

from __future__ import annotations

from typing import Any

import msgspec

from service.domain.subscriptions import DeliveryState

Timestamp = str  # RFC 3339 in UTC with milliseconds and Z


class CredentialView(msgspec.Struct, frozen=True, kw_only=True):
    """A credential; its API key is never returned."""

    id: str
    name: str
    base_url: str
    created_at: Timestamp
    updated_at: Timestamp


class CredentialList(msgspec.Struct, frozen=True):
    """A page of credentials in the order of creation; `next` leads on."""

    items: list[CredentialView]
    next: str | None


class WalkView(msgspec.Struct, frozen=True, kw_only=True):
    """One walk. `verdicts` counts its records by what they meant for their courses."""

    id: str
    kind: str
    state: str
    requested_at: Timestamp | None
    started_at: Timestamp | None
    finished_at: Timestamp | None
    duration_seconds: float | None
    pages: int
    records: int
    verdicts: dict[str, int]
    changes: int
    error: str | None


class WalkList(msgspec.Struct, frozen=True):
    """The walks that are kept, the latest first."""

    items: list[WalkView]
    next: str | None


class IntegrationProblem(msgspec.Struct, frozen=True, kw_only=True):
    """What walks of an integration fail with. If `attention` is set a person must act;
    otherwise the next attempts may succeed by themselves."""

    code: str
    message: str
    since: Timestamp
    attention: bool
    status: int | None
    log_url: str | None


class IntegrationView(msgspec.Struct, frozen=True, kw_only=True):
    """An integration, as registered and as it goes."""

    id: str
    name: str
    upstream_id: str
    credential_id: str
    external_id: str | None
    labels: dict[str, str]
    delta_interval_seconds: int
    sweep_interval_seconds: int
    baseline: str
    ignore_paths: tuple[str, ...]
    track_remote_data: bool
    paused: bool
    created_at: Timestamp
    updated_at: Timestamp
    state: str
    epoch: str
    course_count: int
    quarantined: int
    last_walk: WalkView | None
    next_walk_at: Timestamp | None
    error: IntegrationProblem | None


class IntegrationList(msgspec.Struct, frozen=True):
    """A page of integrations in the order of creation; `next` leads on."""

    items: list[IntegrationView]
    next: str | None


class CheckResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one small request to the upstream led to: `records_seen` (0 or 1) if it is ok, else
    what went wrong and what to do."""

    ok: bool
    records_seen: int | None = None
    code: str | None = None
    status: int | None = None
    message: str | None = None
    remedy: str | None = None


class CourseView(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a course. `state` is live, deleted or quarantined (with the reason that
    its record does not decode); `sequence` and `last_event_id` are null before its first event."""

    course_id: str
    remote_id: str | None
    origin_id: str | None
    state: str
    reason: str | None
    sequence: int | None
    last_event_id: str | None


class CourseList(msgspec.Struct, frozen=True):
    """About `limit` courses in no order; `next` leads on."""

    items: list[CourseView]
    next: str | None


class SubscriptionView(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription. `headers` shows the names of its headers with null for the values, which
    are never returned; `secret` is there only in the answer to its creation."""

    id: str
    url: str
    description: str | None
    event_types: tuple[str, ...] | None
    integration_ids: tuple[str, ...] | None
    labels: dict[str, str] | None
    changed: tuple[str, ...] | None
    payload: str
    headers: dict[str, None]
    max_concurrency: int
    timeout_seconds: float
    retry_schedule_seconds: tuple[int, ...]
    paused: bool
    created_at: Timestamp
    updated_at: Timestamp
    state: str
    disabled_reason: str | None
    pending: int
    dead: int
    oldest_pending_at: Timestamp | None
    secret: str | msgspec.UnsetType = msgspec.UNSET


class SubscriptionList(msgspec.Struct, frozen=True):
    """A page of subscriptions in the order of creation; `next` leads on."""

    items: list[SubscriptionView]
    next: str | None


class SecretView(msgspec.Struct, frozen=True):
    """The secret that pushes are signed with."""

    secret: str


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP POST and what came back. `excerpt` is the beginning of the answer."""

    event_id: str
    number: int
    at: Timestamp
    outcome: str
    duration_ms: int
    status: int | None
    connect_ms: int | None
    first_byte_ms: int | None
    error: str | None
    excerpt: str
    next_attempt_at: Timestamp | None


class DeliveryView(msgspec.Struct, frozen=True, kw_only=True):
    """One event for one subscription, with its attempts; `reason` says why a dead one is."""

    subscription_id: str
    event_id: str
    state: DeliveryState
    reason: str | None
    attempts: list[AttemptView]


class DeliveryList(msgspec.Struct, frozen=True):
    """A page of deliveries in the order of their events; `next` leads on."""

    items: list[DeliveryView]
    next: str | None


class EventView(msgspec.Struct, frozen=True):
    """An event, byte for byte as it is pushed."""

    type: str
    timestamp: Timestamp
    data: dict[str, Any]


class EventList(msgspec.Struct, frozen=True):
    """A page of the event log, oldest first. `next` leads on and is null at the end of the log;
    to go on later, pass the id of the last event as `after`."""

    items: list[EventView]
    next: str | None


class Health(msgspec.Struct, frozen=True):
    """The answer of a process that is well."""

    status: str


class RedisStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The Redis or Valkey server. `memory_limit_bytes` is null where it has none; `aof_ok` is
    null where the append-only file is off."""

    up: bool
    server: str | None = None
    version: str | None = None
    uptime_seconds: int | None = None
    memory_used_bytes: int | None = None
    memory_limit_bytes: int | None = None
    aof_enabled: bool | None = None
    aof_ok: bool | None = None


class SchedulerStatus(msgspec.Struct, frozen=True):
    """A scheduler and when it last looked for work."""

    name: str
    last_turn_at: Timestamp


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A worker process as RQ knows it."""

    name: str
    state: str
    queues: tuple[str, ...]
    host: str | None
    pid: int | None
    last_heartbeat_at: Timestamp | None


class QueueStatus(msgspec.Struct, frozen=True):
    """An RQ queue: jobs that wait, jobs under way, jobs that failed in the last day."""

    name: str
    queued: int
    started: int
    failed: int


class WorkStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Walks or lanes: due and not claimed, claimed, and of those under a worker's lease."""

    due: int
    claimed: int
    leased: int
    oldest_due_at: Timestamp | None


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """What there is in all."""

    credentials: int
    integrations: int
    subscriptions: int
    courses: int
    quarantined: int
    events: int
    pending: int
    dead: int


class SystemStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How the whole system is doing; `reasons` says why it is not `ok`. With Redis down nothing
    else is known."""

    status: str
    reasons: tuple[str, ...]
    version: str
    time: Timestamp
    redis: RedisStatus
    schedulers: list[SchedulerStatus]
    workers: list[WorkerStatus]
    queues: list[QueueStatus]
    walks: WorkStatus | None
    lanes: WorkStatus | None
    totals: Totals | None
