"""What the API answers with, as typed structs."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from service.domain.delivery.subscription import DeliveryState

Timestamp = str  # RFC 3339 in UTC with milliseconds and Z


def _means(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class CredentialView(msgspec.Struct, frozen=True, kw_only=True):
    """A credential; its API key is never returned."""

    id: Annotated[str, _means("its id")]
    name: Annotated[str, _means("what people call it")]
    base_url: Annotated[str, _means("the upstream's base URL")]
    created_at: Annotated[Timestamp, _means("when it was created")]
    updated_at: Annotated[Timestamp, _means("when it was last changed")]


class CredentialList(msgspec.Struct, frozen=True):
    """A page of credentials in the order of creation; `next` leads on."""

    items: Annotated[list[CredentialView], _means("the page")]
    next: Annotated[str | None, _means("pass it as `after` to go on; null: this is the end")]


class PollView(msgspec.Struct, frozen=True, kw_only=True):
    """One poll. `verdicts` counts its records by what they meant for their courses."""

    id: Annotated[str, _means("its id")]
    kind: Annotated[str, _means("delta: changed courses; full poll: all courses")]
    state: Annotated[str, _means("queued, running, completed or failed")]
    requested_at: Annotated[
        Timestamp | None, _means("when it was asked for; null: it was due by itself")
    ]
    started_at: Annotated[Timestamp | None, _means("when its first page was asked for")]
    finished_at: Annotated[Timestamp | None, _means("when it ended")]
    duration_seconds: Annotated[float | None, _means("from start to end")]
    pages: Annotated[int, _means("pages read so far")]
    records: Annotated[int, _means("records read so far")]
    verdicts: Annotated[dict[str, int], _means("how many records meant what for their courses")]
    changes: Annotated[int, _means("events that it led to")]
    error: Annotated[str | None, _means("why it failed, or what the last attempt failed with")]


class PollList(msgspec.Struct, frozen=True):
    """The polls that are kept, the latest first."""

    items: Annotated[list[PollView], _means("the page")]
    next: Annotated[str | None, _means("pass it as `after` to go on; null: this is the end")]


class IntegrationProblem(msgspec.Struct, frozen=True, kw_only=True):
    """What polls of an integration fail with. If `attention` is set a person must act;
    otherwise the next attempts may succeed by themselves."""

    code: Annotated[str, _means("the upstream's error code, or the name of what went wrong")]
    message: Annotated[str, _means("what went wrong, in words")]
    remedy: Annotated[str, _means("what to do about it")]
    since: Annotated[Timestamp, _means("when the first failure in a row was")]
    attention: Annotated[bool, _means("whether a person must act")]
    status: Annotated[int | None, _means("the upstream's HTTP status; null: it did not answer")]
    log_url: Annotated[str | None, _means("the upstream's own page about the request")]


class IntegrationNotice(msgspec.Struct, frozen=True, kw_only=True):
    """Something that polls of an integration come through, and that a person should know."""

    code: Annotated[
        str,
        _means(
            "unconfirmed_changes, clock_skew, cached_answers, flapping_path or records_without_id"
        ),
    ]
    message: Annotated[str, _means("what was noticed and what to do about it, in words")]
    since: Annotated[Timestamp, _means("since when it has been so")]


class IntegrationView(msgspec.Struct, frozen=True, kw_only=True):
    """An integration, as registered and as it goes."""

    id: Annotated[str, _means("its id")]
    name: Annotated[str, _means("what people call it")]
    upstream_id: Annotated[str, _means("its X-Integration-Id at the upstream")]
    credential_id: Annotated[str, _means("the credential it uses")]
    external_id: Annotated[str | None, _means("your own name for it")]
    labels: Annotated[dict[str, str], _means("your own labels")]
    delta_interval_seconds: Annotated[int, _means("from one look for changed courses to the next")]
    full_interval_seconds: Annotated[int, _means("from one look at all courses to the next")]
    baseline: Annotated[
        str,
        _means(
            "emit: the first complete full poll reports its courses as created; silent: it does not"
        ),
    ]
    ignore_paths: Annotated[tuple[str, ...], _means("paths whose changes are not reported")]
    track_remote_data: Annotated[bool, _means("whether changes of remote_data count")]
    guards: Annotated[dict[str, float], _means("how much change in one poll is held for review")]
    paused: Annotated[bool, _means("whether it is not polled")]
    created_at: Annotated[Timestamp, _means("when it was registered")]
    updated_at: Annotated[Timestamp, _means("when it was last changed")]
    state: Annotated[
        str,
        _means(
            "the first that applies: paused; error: a person must act, see `error`; review: "
            "changes are held for a decision; pending: its first full poll is not complete; active"
        ),
    ]
    epoch: Annotated[str, _means("names its catalogue; another one begins with another upstream")]
    held: Annotated[int, _means("changes held for a decision, or until it is carried out")]
    course_count: Annotated[int, _means("live courses")]
    quarantined: Annotated[int, _means("courses whose records do not decode")]
    clock_skew_seconds: Annotated[
        float | None,
        _means("how far the upstream's clock is ahead of ours; null: within 30 seconds"),
    ]
    last_poll: Annotated[PollView | None, _means("the latest poll")]
    next_poll_at: Annotated[
        Timestamp | None, _means("when it is due; null: it is under way or paused")
    ]
    error: Annotated[
        IntegrationProblem | None, _means("what polls fail with; null: the last one did not")
    ]
    notices: Annotated[
        list[IntegrationNotice], _means("what polls come through, and a person should know")
    ]


class IntegrationList(msgspec.Struct, frozen=True):
    """A page of integrations in the order of creation; `next` leads on."""

    items: Annotated[list[IntegrationView], _means("the page")]
    next: Annotated[str | None, _means("pass it as `after` to go on; null: this is the end")]


class HeldChangeView(msgspec.Struct, frozen=True, kw_only=True):
    """A change that is held. Its course's last event and what is kept of it stay as they were."""

    course_id: Annotated[str, _means("the course's id at the upstream")]
    kind: Annotated[str, _means("deleted or updated")]
    evidence: Annotated[
        str | None,
        _means("of a deletion: tombstone, or absence, which is verified when it is applied"),
    ]
    changed: Annotated[tuple[str, ...], _means("of an update: the paths that are held")]


class ReviewView(msgspec.Struct, frozen=True, kw_only=True):
    """Changes of an integration that are held because they are too many to be believed. `deleted`
    and `changed` count all of them, `items` is a page of them in no order."""

    integration_id: Annotated[str, _means("the integration")]
    state: Annotated[
        str,
        _means(
            "open: a decision is needed; applying or discarding: the last one is being carried "
            "out; none"
        ),
    ]
    since: Annotated[Timestamp | None, _means("when the first of them was held")]
    deleted: Annotated[int, _means("how many courses seem to be deleted")]
    changed: Annotated[dict[str, int], _means("how many courses changed, by path")]
    items: Annotated[list[HeldChangeView], _means("the page")]
    next: Annotated[str | None, _means("pass it as `after` to go on; null: this is the end")]


class CheckResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one small request to the upstream led to: `records_seen` (0 or 1) if it is ok, else
    what went wrong and what to do."""

    ok: Annotated[bool, _means("whether the upstream answered with a page")]
    records_seen: Annotated[int | None, _means("courses on it, 0 or 1")] = None
    code: Annotated[
        str | None, _means("the upstream's error code, or the name of what went wrong")
    ] = None
    status: Annotated[int | None, _means("the upstream's HTTP status")] = None
    message: Annotated[str | None, _means("what went wrong, in words")] = None
    remedy: Annotated[str | None, _means("what to do about it")] = None


class CourseView(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a course. `state` is live, deleted, held (a change of it waits for a
    decision) or quarantined (with the reason that its record does not decode); `sequence` and
    `last_event_id` are null before its first event."""

    course_id: Annotated[str, _means("its id at the upstream")]
    remote_id: Annotated[str | None, _means("its id in the learning system")]
    origin_id: Annotated[
        str | None, _means("its id where it came from, if the learning system says so")
    ]
    state: Annotated[str, _means("live, deleted, held or quarantined")]
    reason: Annotated[str | None, _means("why its record does not decode")]
    sequence: Annotated[int | None, _means("the number of its last event")]
    last_event_id: Annotated[str | None, _means("the id of its last event")]


class CourseList(msgspec.Struct, frozen=True):
    """At most `limit` courses in no order; `next` leads on."""

    items: Annotated[list[CourseView], _means("the page")]
    next: Annotated[str | None, _means("pass it as `after` to go on; null: this is the end")]


class ClientCertificateView(msgspec.Struct, frozen=True, kw_only=True):
    """The certificate that a subscription shows to its receiver. Neither it nor its key are
    returned."""

    subject: Annotated[str, _means("whose it is, as RFC 4514 writes names")]
    issuer: Annotated[str, _means("who issued it, written the same way")]
    serial: Annotated[str, _means("its serial number, in hexadecimal")]
    fingerprint_sha256: Annotated[str, _means("the SHA-256 of its DER form, in hexadecimal")]
    not_after: Annotated[Timestamp, _means("when it expires")]


class SubscriptionView(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription. `headers` shows the names of its headers with null for the values, which
    are never returned; `secret` is there only in the answer to its creation, and not for
    ed25519."""

    id: Annotated[str, _means("its id")]
    url: Annotated[str, _means("where events are posted to")]
    description: Annotated[str | None, _means("what it is for")]
    event_types: Annotated[tuple[str, ...] | None, _means("only these; null: every course.* event")]
    integration_ids: Annotated[tuple[str, ...] | None, _means("only events of these; null: of all")]
    labels: Annotated[
        dict[str, str] | None,
        _means("only events of integrations that carry all of these; null: any"),
    ]
    changed: Annotated[
        tuple[str, ...] | None,
        _means("of course.updated only those that name one of these paths; null: any"),
    ]
    payload: Annotated[str, _means("full: with the course; thin: without it")]
    format: Annotated[str, _means("standard, or cloudevents: a structured CloudEvent 1.0")]
    signature: Annotated[str, _means("hmac: signed as v1; ed25519: signed as v1a")]
    public_key: Annotated[
        str | None, _means("what ed25519 signatures are verified with: whpk_ and base64")
    ]
    headers: Annotated[
        dict[str, None], _means("the names of its headers, with null for each value")
    ]
    client_certificate: Annotated[
        ClientCertificateView | None, _means("what is shown to a receiver that demands one")
    ]
    max_concurrency: Annotated[int, _means("how many pushes may be under way at once")]
    rate_per_second: Annotated[
        float | None, _means("how many pushes may begin per second; null: any number")
    ]
    timeout_seconds: Annotated[float, _means("how long one attempt may take")]
    retry_schedule_seconds: Annotated[tuple[int, ...], _means("the delays between attempts")]
    paused: Annotated[bool, _means("whether nothing is sent; events are collected meanwhile")]
    created_at: Annotated[Timestamp, _means("when it was created")]
    updated_at: Annotated[Timestamp, _means("when it was last changed")]
    state: Annotated[
        str,
        _means(
            "active; paused by someone; parked: it fails, and is only probed; "
            "disabled by the service until it is resumed"
        ),
    ]
    disabled_reason: Annotated[str | None, _means("why it is disabled")]
    owner: Annotated[
        str | None, _means("the API key that created it, of the scope subscriber; null: no such")
    ]
    pending: Annotated[int, _means("events not yet delivered")]
    dead: Annotated[int, _means("events whose delivery was given up")]
    oldest_pending_at: Annotated[Timestamp | None, _means("when the oldest pending event happened")]
    secret: Annotated[
        str | msgspec.UnsetType,
        _means("what hmac pushes are signed with; only in the answer to its creation"),
    ] = msgspec.UNSET


class SkippedView(msgspec.Struct, frozen=True, kw_only=True):
    """What became of pending deliveries."""

    skipped: Annotated[int, _means("how many were taken off the outbox")]
    pending: Annotated[int, _means("how many are on it now")]


class SubscriptionList(msgspec.Struct, frozen=True):
    """A page of subscriptions in the order of creation; `next` leads on."""

    items: Annotated[list[SubscriptionView], _means("the page")]
    next: Annotated[str | None, _means("pass it as `after` to go on; null: this is the end")]


class EndingSecretView(msgspec.Struct, frozen=True, kw_only=True):
    """A rotated secret that still signs beside the new one."""

    signature: Annotated[str, _means("hmac or ed25519")]
    secret: Annotated[str | None, _means("whsec_ and base64; null: an ed25519 key")]
    public_key: Annotated[str | None, _means("whpk_ and base64; null: an hmac secret")]
    expires_at: Annotated[Timestamp, _means("when it signs no more")]


class SecretView(msgspec.Struct, frozen=True, kw_only=True):
    """What receivers verify pushes with: the secret of hmac, or the public key of ed25519."""

    signature: Annotated[str, _means("hmac or ed25519")]
    secret: Annotated[str | None, _means("whsec_ and base64; null: an ed25519 key")]
    public_key: Annotated[str | None, _means("whpk_ and base64; null: an hmac secret")]
    previous: Annotated[
        list[EndingSecretView], _means("rotated secrets that still sign, the newest first")
    ]


class ReplayView(msgspec.Struct, frozen=True, kw_only=True):
    """Events that a subscription is sent once more. Each event that was `queued` ends as
    `delivered` or, after the ordinary retries, as `dead`."""

    id: Annotated[str, _means("its id")]
    subscription_id: Annotated[str, _means("who is sent them")]
    which: Annotated[str, _means("all, dead, missing or backfill; event: one was redelivered")]
    since: Annotated[Timestamp | None, _means("events from this time on; null: all there were")]
    until: Annotated[Timestamp | None, _means("events before this time; null: all there were")]
    event_types: Annotated[tuple[str, ...] | None, _means("only these; null: any that match")]
    event_id: Annotated[str | None, _means("the event that is redelivered")]
    state: Annotated[
        str,
        _means(
            "queued: others come first; running; completed: everything has been delivered or is "
            "dead; cancelled; failed"
        ),
    ]
    scanned: Annotated[
        int, _means("events looked at so far; of a backfill, the upstream's records")
    ]
    queued: Annotated[int, _means("of these, those to be sent")]
    delivered: Annotated[int, _means("of these, those delivered")]
    dead: Annotated[int, _means("of these, those given up")]
    left_out: Annotated[
        int,
        _means(
            "courses that a backfill did not send, because what the upstream shows of them is not "
            "what the polls have found so far, or is held for review"
        ),
    ]
    reached_at: Annotated[
        Timestamp | None,
        _means("when the last event happened that was looked at; null for a backfill"),
    ]
    created_at: Annotated[Timestamp, _means("when it was asked for")]
    started_at: Annotated[Timestamp | None, _means("when its first event was looked at")]
    finished_at: Annotated[Timestamp | None, _means("when it ended")]
    error: Annotated[str | None, _means("why it failed, or what it could not do")]


class ReplayList(msgspec.Struct, frozen=True):
    """A page of replays in the order in which they were asked for; `next` leads on."""

    items: Annotated[list[ReplayView], _means("the page")]
    next: Annotated[str | None, _means("pass it as `after` to go on; null: this is the end")]


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP POST and what came back. `excerpt` is the beginning of the answer."""

    event_id: Annotated[str, _means("the event that was posted")]
    number: Annotated[int, _means("the first attempt is 1")]
    at: Annotated[Timestamp, _means("when it began")]
    outcome: Annotated[str, _means("what it came to; `delivered` is the only success")]
    duration_ms: Annotated[int, _means("until the answer was read, or given up")]
    status: Annotated[int | None, _means("the receiver's HTTP status; null: it did not answer")]
    dns_ms: Annotated[
        int | None, _means("until the host's address was known; null: it was known before")
    ]
    connect_ms: Annotated[int | None, _means("until the connection stood")]
    first_byte_ms: Annotated[int | None, _means("until the answer began")]
    error: Annotated[str | None, _means("what went wrong, in words")]
    excerpt: Annotated[str, _means("the beginning of the answer")]
    next_attempt_at: Annotated[
        Timestamp | None, _means("when the next one is due; null: there is none")
    ]
    counted: Annotated[
        bool,
        _means(
            "false: the service's own network failed, or its machine was short of something; the "
            "attempt used up no retry"
        ),
    ]
    replay: Annotated[bool, _means("whether it was made for a replay")]


class DeliveryView(msgspec.Struct, frozen=True, kw_only=True):
    """One event for one subscription, with its attempts; `reason` says why a dead one is."""

    subscription_id: Annotated[str, _means("who it is for")]
    event_id: Annotated[str, _means("the event")]
    state: Annotated[DeliveryState, _means("pending, delivered or dead")]
    reason: Annotated[str | None, _means("why a dead one is dead")]
    attempts: Annotated[list[AttemptView], _means("its attempts, the first one first")]


class DeliveryList(msgspec.Struct, frozen=True):
    """A page of deliveries in the order of their events; `next` leads on."""

    items: Annotated[list[DeliveryView], _means("the page")]
    next: Annotated[str | None, _means("pass it as `after` to go on; null: this is the end")]


class EventView(msgspec.Struct, frozen=True):
    """An event, byte for byte as it is pushed."""

    type: Annotated[str, _means("the event type")]
    timestamp: Annotated[Timestamp, _means("when the change was found")]
    data: Annotated[dict[str, Any], _means("what happened; see the webhook of this type")]


class EventList(msgspec.Struct, frozen=True):
    """A page of the event log. `next` leads on and is null at the end of the log. `cursor` is the
    bookmark to store: it is there on every page, the last one and an empty one included."""

    items: Annotated[list[EventView], _means("the page")]
    next: Annotated[str | None, _means("pass it as `after` to go on; null: this is the end")]
    cursor: Annotated[
        str | None,
        _means("pass it as `after` at any later time for what came since; null with order=desc"),
    ]


class ApiKeyView(msgspec.Struct, frozen=True, kw_only=True):
    """An API key. `token` is there only in the answer that makes it: nobody can tell it
    again."""

    id: Annotated[str, _means("its id")]
    name: Annotated[str, _means("what people call it")]
    prefix: Annotated[str, _means("what its token begins with, to know a token found somewhere")]
    scope: Annotated[str, _means("admin, subscriber, read or metrics")]
    integration_ids: Annotated[
        tuple[str, ...] | None,
        _means("integrations whose events a subscriber may see; null: none by id"),
    ]
    labels: Annotated[
        dict[str, str] | None,
        _means("a subscriber may see events that carry all of these labels; null: none by labels"),
    ]
    created_at: Annotated[Timestamp, _means("when it was created")]
    updated_at: Annotated[Timestamp, _means("when it was last changed")]
    expires_at: Annotated[Timestamp | None, _means("when it opens nothing any more; null: never")]
    last_used_at: Annotated[
        Timestamp | None, _means("when it was last used, to the minute; null: never")
    ]
    token: Annotated[
        str | msgspec.UnsetType, _means("the bearer token; only in the answer that makes it")
    ] = msgspec.UNSET


class ApiKeyList(msgspec.Struct, frozen=True):
    """A page of API keys in the order of creation; `next` leads on."""

    items: Annotated[list[ApiKeyView], _means("the page")]
    next: Annotated[str | None, _means("pass it as `after` to go on; null: this is the end")]


class AuditView(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was done."""

    at: Annotated[Timestamp, _means("when")]
    actor: Annotated[
        str | None, _means("the API key's id, or `admin token`; null: nobody that is known")
    ]
    action: Annotated[str, _means("what was done, such as subscription.updated")]
    object_id: Annotated[str | None, _means("what it was done to")]
    fields: Annotated[tuple[str, ...], _means("the names of the fields that were sent")]
    request_id: Annotated[
        str | None, _means("the `X-Request-ID` of the answer, which the log's lines carry too")
    ]
    address: Annotated[
        str | None, _means("where the request came from: the client, or the last proxy before us")
    ]


class AuditList(msgspec.Struct, frozen=True):
    """A page of the audit trail, the newest entry first; `next` leads on."""

    items: Annotated[list[AuditView], _means("the page")]
    next: Annotated[str | None, _means("pass it as `after` to go on; null: this is the end")]


class Health(msgspec.Struct, frozen=True):
    """The answer of a process that is well."""

    status: Annotated[str, _means("ok")]


class Root(msgspec.Struct, frozen=True, kw_only=True):
    """Where to read on."""

    name: str
    version: str
    documentation: str
    api: str


class RedisStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The Redis or Valkey server. `memory_limit_bytes` is null where it has none; `aof_ok` is
    null where the append-only file is off."""

    up: Annotated[bool, _means("whether it answers")]
    server: Annotated[str | None, _means("redis or valkey")] = None
    version: Annotated[str | None, _means("its version")] = None
    uptime_seconds: Annotated[int | None, _means("how long it has been running")] = None
    memory_used_bytes: Annotated[int | None, _means("memory in use")] = None
    memory_limit_bytes: Annotated[int | None, _means("its limit; null: none")] = None
    memory_share: Annotated[
        float | None, _means("the part of the limit in use, 0 to 1; null: no limit")
    ] = None
    eviction_policy: Annotated[
        str | None, _means("what it drops when its memory is full; must be noeviction")
    ] = None
    persistence: Annotated[
        str | None,
        _means(
            "aof, snapshots, none, or unknown where it does not tell whether it writes snapshots"
        ),
    ] = None
    aof_enabled: Annotated[bool | None, _means("whether it keeps an append-only file")] = None
    aof_ok: Annotated[
        bool | None, _means("whether the last write to it succeeded; null: there is none")
    ] = None


class SchedulerStatus(msgspec.Struct, frozen=True):
    """A scheduler and when it last looked for work."""

    name: Annotated[str, _means("its name")]
    last_turn_at: Annotated[Timestamp, _means("when it last looked for work")]


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A worker process as RQ knows it."""

    name: Annotated[str, _means("its name")]
    state: Annotated[str, _means("busy, idle, suspended or started")]
    queues: Annotated[tuple[str, ...], _means("the queues it serves, the most urgent first")]
    host: Annotated[str | None, _means("where it runs")]
    pid: Annotated[int | None, _means("its process id there")]
    last_heartbeat_at: Annotated[Timestamp | None, _means("when it last said that it lives")]


class QueueStatus(msgspec.Struct, frozen=True):
    """An RQ queue: jobs that wait, jobs under way, jobs that failed in the last day."""

    name: Annotated[str, _means("its name")]
    queued: Annotated[int, _means("jobs that wait")]
    started: Annotated[int, _means("jobs under way")]
    failed: Annotated[int, _means("jobs that failed in the last day")]


class WorkStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Polls or outboxes: due and not claimed, claimed, and of those under a worker's lease.
    Outboxes that are held back, as parked ones are between probes, count as claimed."""

    due: Annotated[int, _means("due and not claimed")]
    claimed: Annotated[int, _means("claimed for a worker, or held back for a while")]
    leased: Annotated[int, _means("of the claimed, those under a worker's lease")]
    oldest_due_at: Annotated[Timestamp | None, _means("since when the oldest has been due")]


class Paused(msgspec.Struct, frozen=True):
    """What was stopped over the API, and since when."""

    polling: Annotated[Timestamp | None, _means("since when nothing is polled; null: it goes on")]
    delivery: Annotated[Timestamp | None, _means("since when nothing is pushed; null: it goes on")]


class IntegrationStates(msgspec.Struct, frozen=True, kw_only=True):
    """How many integrations are in which state. Those in `error` and `review` need attention."""

    active: Annotated[int, _means("polled, their baselines complete")]
    pending: Annotated[int, _means("polled for the first time")]
    paused: Annotated[int, _means("not polled, as somebody wished")]
    error: Annotated[int, _means("cannot be polled until a person acts")]
    review: Annotated[int, _means("polled, with changes held for a decision")]


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """What there is in all."""

    credentials: Annotated[int, _means("credentials")]
    integrations: Annotated[int, _means("integrations")]
    subscriptions: Annotated[int, _means("subscriptions")]
    courses: Annotated[int, _means("live courses")]
    quarantined: Annotated[int, _means("courses whose records do not decode")]
    held: Annotated[int, _means("changes that wait for a decision on them")]
    events: Annotated[int, _means("events in the log")]
    pending: Annotated[int, _means("events not yet delivered, over all subscriptions")]
    dead: Annotated[int, _means("events whose delivery was given up, over all subscriptions")]


class SystemStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How the whole system is doing; `reasons` says why it is not `ok`. With Redis down nothing
    else is known."""

    status: Annotated[str, _means("ok, degraded or down")]
    reasons: Annotated[tuple[str, ...], _means("why it is not ok")]
    version: Annotated[str, _means("of this service")]
    time: Annotated[Timestamp, _means("of this answer")]
    redis: Annotated[RedisStatus, _means("the Redis or Valkey server")]
    schedulers: Annotated[list[SchedulerStatus], _means("the schedulers at work")]
    workers: Annotated[list[WorkerStatus], _means("the worker processes")]
    queues: Annotated[list[QueueStatus], _means("the job queues")]
    polls: Annotated[WorkStatus | None, _means("where polls stand")]
    outboxes: Annotated[WorkStatus | None, _means("where pushes stand")]
    paused: Annotated[Paused | None, _means("what is stopped, and since when")]
    integrations: Annotated[
        IntegrationStates | None, _means("how many integrations are in which state")
    ]
    totals: Annotated[Totals | None, _means("what there is in all")]
