"""Every Redis key of Coursewire: its type and its lifetime. RQ's own keys begin with `rq:`."""

from __future__ import annotations

from typing import NewType

import msgspec

Key = NewType("Key", str)
"""The name of a key. Scripts accept only keys, so no other text is passed for one."""

# --- registrations: kept until deleted -----------------------------------------------------

CREDENTIALS = Key("cw:credentials")  # zset: credential id -> created ms
CREDENTIALS_BY_VALUES = Key("cw:credentials:by_values")  # hash: "key's mark base_url" -> id
INTEGRATIONS = Key("cw:integrations")  # zset: integration id -> created ms
UPSTREAMS = Key("cw:upstreams")  # hash: "base_url upstream_id" -> integration id
SUBSCRIPTIONS = Key("cw:subscriptions")  # zset: subscription id -> created ms
SUBSCRIPTIONS_VERSION = Key("cw:subscriptions:version")  # integer, grows with edits of API keys too
API_KEYS = Key("cw:api_keys")  # zset: API key id -> created ms


def credential(credential_id: str) -> Key:
    """Hash: `record` (JSON), `api_key` (encrypted), `uses` (integrations that refer to it),
    `values` (the key's mark and the base URL, for its index)."""
    return Key(f"cw:credential:{credential_id}")


def integration(integration_id: str) -> Key:
    """Hash: `record` (JSON), `epoch`, `previous_epoch`, `baselined`, `watermark`,
    `last_delta_at`, `last_full_at`, `full_retry_at`, `course_count`, `quarantined`, `held`,
    `decision`, `failures`, `problem` (JSON), `attention` (the problem needs a person), `paused`,
    `state` (the one it is counted under in the totals), `clock_skew_ms`, `observed`
    (JSON: what polls noticed), `requested`, `requested_id`, `poll` (JSON: the poll under way, to
    be resumed), `again` (the poll under way was joined)."""
    return Key(f"cw:integration:{integration_id}")


def subscription(subscription_id: str) -> Key:
    """Hash: `record` (JSON), `begins` (ms since when it is sent events), `secrets`, `headers` and
    `client_certificate` (encrypted JSON)."""
    return Key(f"cw:subscription:{subscription_id}")


AUDIT = Key("cw:audit")  # stream: who changed what; the newest ten thousand


def api_key(key_id: str) -> Key:
    """Hash: `record` (JSON), `digest` (SHA-256 of the token), `last_used_at` (ms); after a rotation
    with overlap `previous_digest` and `previous_until` (ms)."""
    return Key(f"cw:api_key:{key_id}")


def reply(name: str) -> Key:
    """String: the answer to a request with an idempotency key, encrypted; `name` is a digest of
    actor and key. Expires after a day; 3 minutes while the request is running."""
    return Key(f"cw:reply:{name}")


# --- the catalogue: one epoch of an integration ---------------------------------------------


def catalogue(integration_id: str, epoch: str) -> Key:
    """Hash: course id -> packed fingerprint. Deleted when its epoch ends."""
    return Key(f"cw:catalogue:{integration_id}:{epoch}")


def quarantine(integration_id: str, epoch: str) -> Key:
    """Hash: course id -> reason its record does not decode. Deleted with its epoch."""
    return Key(f"cw:quarantine:{integration_id}:{epoch}")


def held(integration_id: str, epoch: str) -> Key:
    """Hash: course id -> packed `Withheld`: changes that wait for a person to decide. Deleted
    with its epoch."""
    return Key(f"cw:held:{integration_id}:{epoch}")


def review(integration_id: str, epoch: str) -> Key:
    """Hash: `since` (ms), `version`, `exceeded` (JSON: the limits for which changes were last
    held), and the numbers of held changes: `T`, `A` and `U` by kind, `path<number>` by tracked
    path. Exists while changes are held."""
    return Key(f"cw:review:{integration_id}:{epoch}")


def decided(integration_id: str, epoch: str) -> Key:
    """Hash: course id -> packed `Withheld`: changes whose decision is being carried out. Deleted
    with its epoch."""
    return Key(f"cw:decided:{integration_id}:{epoch}")


class EpochKeys(msgspec.Struct, frozen=True):
    """The keys of an epoch, and of the current poll in it."""

    catalogue: Key
    quarantine: Key
    held: Key
    review: Key
    decided: Key
    seen: Key
    waiting: Key


def of_epoch(integration_id: str, epoch: str, poll_id: str) -> EpochKeys:
    """All keys that end with an epoch; `poll_id` is the current poll, empty if there is none."""
    lasting = (catalogue, quarantine, held, review, decided)
    return EpochKeys(
        *(key(integration_id, epoch) for key in lasting),
        *(key(integration_id, poll_id) for key in (seen, waiting)),
    )


def seen(integration_id: str, poll_id: str) -> Key:
    """String: 8-byte digests of the ids that a full poll has read so far. Lives 6 hours after the
    poll's last commit, longer than a poll can be resumed."""
    return Key(f"cw:seen:{integration_id}:{poll_id}")


def waiting(integration_id: str, poll_id: str) -> Key:
    """Hash: course id -> packed `Withheld`: changes that wait for the end of a poll. Lives 6
    hours after the poll's last commit, and no longer than the poll."""
    return Key(f"cw:waiting:{integration_id}:{poll_id}")


def polls(integration_id: str) -> Key:
    """Hash: poll id -> JSON, the latest 50. Deleted with the integration."""
    return Key(f"cw:polls:{integration_id}")


def poll_order(integration_id: str) -> Key:
    """Zset: poll id -> first known ms. Deleted with the integration."""
    return Key(f"cw:polls:{integration_id}:order")


# --- events and outboxes -----------------------------------------------------------------------

EVENTS = Key("cw:events")  # stream: the event log; trimmed by retention
EVENTS_TRIMMED = Key("cw:events:trimmed")  # string: position of the last event trimmed; lasts


def outbox(subscription_id: str) -> Key:
    """Stream: the pending entries of the subscription, under the log's positions. Deleted with the
    subscription; an entry is removed when it is delivered or dead."""
    return Key(f"cw:outbox:{subscription_id}")


def outbox_retries(subscription_id: str) -> Key:
    """Zset: order key -> ms of the next attempt at that course's failing entry. Deleted with
    the subscription."""
    return Key(f"cw:outbox:{subscription_id}:retries")


def outbox_failing(subscription_id: str) -> Key:
    """Hash: order key -> "position attempts sent rendering" of the course's head if it has failed:
    attempts that count, and all attempts. Deleted with the subscription."""
    return Key(f"cw:outbox:{subscription_id}:failing")


def outbox_retrying(subscription_id: str) -> Key:
    """Zset, in the order of the members: sort keys of the positions of the failing entries. Deleted
    with the subscription."""
    return Key(f"cw:outbox:{subscription_id}:retrying")


def outbox_state(subscription_id: str) -> Key:
    """Hash: `breaker` (JSON), `bucket` (JSON), `parked` and `disabled` (ms, set in that state),
    `paused` and `failing` (set in that state), `state` (its counter among the totals), `resumed`
    (random, of the last resume), `emptied` (random, of the last removal of unsent entries),
    `cursor` ("ms start": since `ms`, all entries before `start` have been read, and each has failed
    or waits behind one that has; a script that removes unsent entries deletes it),
    `replayed_cursor` (the same for replayed entries). Deleted with the subscription."""
    return Key(f"cw:outbox:{subscription_id}:state")


def outbox_dead(subscription_id: str) -> Key:
    """Zset, in the order of the members: sort keys of the positions of dead deliveries. Trimmed by
    the retention of dead deliveries; deleted with the subscription."""
    return Key(f"cw:outbox:{subscription_id}:dead")


def outbox_dead_facts(subscription_id: str) -> Key:
    """Hash: sort key -> "ms attempts rendering order-key reason" of a delivery that became dead at
    that time. Lives like the list itself."""
    return Key(f"cw:outbox:{subscription_id}:dead:facts")


def outbox_unannounced(subscription_id: str) -> Key:
    """Hash: dead deliveries that were not announced yet: `for:<reason>` their number, `first` and
    `last` (ms) the times of their events. Deleted with the subscription."""
    return Key(f"cw:outbox:{subscription_id}:unannounced")


class QueueKeys(msgspec.Struct, frozen=True):
    """The keys of one of the two queues of an outbox: its entries, the due times of courses whose
    heads have failed, those heads, and the positions of their events."""

    stream: Key
    retries: Key
    failing: Key
    retrying: Key


def live_queue(subscription_id: str) -> QueueKeys:
    """New events."""
    return QueueKeys(
        outbox(subscription_id),
        outbox_retries(subscription_id),
        outbox_failing(subscription_id),
        outbox_retrying(subscription_id),
    )


def replayed_queue(subscription_id: str) -> QueueKeys:
    """Replayed events."""
    return QueueKeys(
        replayed(subscription_id),
        replayed_retries(subscription_id),
        replayed_failing(subscription_id),
        replayed_retrying(subscription_id),
    )


class DeadKeys(msgspec.Struct, frozen=True):
    """The list of dead deliveries, their facts, and the unannounced ones."""

    listed: Key
    facts: Key
    unannounced: Key


def dead(subscription_id: str) -> DeadKeys:
    """All keys of dead deliveries."""
    return DeadKeys(
        outbox_dead(subscription_id),
        outbox_dead_facts(subscription_id),
        outbox_unannounced(subscription_id),
    )


def replays(subscription_id: str) -> Key:
    """Zset: replay id -> created ms: all that have not ended and the latest that have. Deleted
    with the subscription."""
    return Key(f"cw:outbox:{subscription_id}:replays")


def replay(subscription_id: str, replay_id: str) -> Key:
    """Hash: `record` (JSON), `state`, `position` (of the last event read, or the JSON of a
    backfill's progress), `fed` (all events are queued), `scanned`, `queued`, `delivered`, `dead`,
    `left_out`, `error`, `only` (it is a redelivery), `created_at`, `started_at`, `finished_at`.
    Lives as long as it is listed."""
    return Key(f"cw:outbox:{subscription_id}:replay:{replay_id}")


def replay_queue(subscription_id: str) -> Key:
    """List: ids of replays with events to queue, the current one first. Deleted with the
    subscription."""
    return Key(f"cw:outbox:{subscription_id}:replay-queue")


def replayed(subscription_id: str) -> Key:
    """Stream: replayed entries: `k` order key, `r` rendering, `p` position in the log, `i` replay
    id. An entry is removed when it is delivered or dead. Deleted with the subscription."""
    return Key(f"cw:outbox:{subscription_id}:replayed")


def replayed_order(subscription_id: str) -> Key:
    """Zset, in the order of the members: the sort key of an event's position, followed by the id of
    its replayed entry. Lives like the replayed entries."""
    return Key(f"cw:outbox:{subscription_id}:replayed:order")


def backfilled(subscription_id: str) -> Key:
    """Stream: the backfilled events of this outbox, with the fields of the log. Their position is
    the entry's id with 2^19 added to its counter. An event is removed when it is delivered, dead,
    cancelled or older than the retention. Deleted with the subscription."""
    return Key(f"cw:outbox:{subscription_id}:backfilled")


def replayed_retries(subscription_id: str) -> Key:
    """Zset like the outbox's retries, for replayed entries. Deleted with the subscription."""
    return Key(f"cw:outbox:{subscription_id}:replayed:retries")


def replayed_failing(subscription_id: str) -> Key:
    """Hash: order key -> "place attempts sent rendering position replay" of the course's first
    replayed entry if it has failed. Deleted with the subscription."""
    return Key(f"cw:outbox:{subscription_id}:replayed:failing")


def replayed_retrying(subscription_id: str) -> Key:
    """Zset like that of the outbox, for replayed entries. Deleted with the subscription."""
    return Key(f"cw:outbox:{subscription_id}:replayed:retrying")


def attempts(subscription_id: str) -> Key:
    """Stream: `o` the order key of the record, `d` the attempt as JSON. Trimmed by count and age;
    deleted with the subscription."""
    return Key(f"cw:attempts:{subscription_id}")


def attempts_order(subscription_id: str) -> Key:
    """Zset, in the order of the members: "S" for a successful attempt or "F" for a failed one, the
    sort key of the event's position (these are the record's `o`), and the record's id. Lives like
    the records."""
    return Key(f"cw:attempts:{subscription_id}:order")


class RecordKeys(msgspec.Struct, frozen=True):
    """Attempt records in the order of the attempts, and in the order of their events."""

    stream: Key
    order: Key


def records(subscription_id: str) -> RecordKeys:
    """All keys of attempt records."""
    return RecordKeys(attempts(subscription_id), attempts_order(subscription_id))


OF_SUBSCRIPTION = (  # deleted with it and nothing else
    outbox_retries,
    outbox_failing,
    outbox_retrying,
    outbox_dead_facts,
    outbox_unannounced,
    attempts,
    attempts_order,
    replayed,
    replayed_order,
    replayed_retries,
    replayed_failing,
    replayed_retrying,
    replay_queue,
    backfilled,
)

# --- schedule and leases --------------------------------------------------------------------


def due(kind: str) -> Key:
    """Zset: id -> ms from which it may be claimed. `kind` is `polls` or `outboxes`."""
    return Key(f"cw:due:{kind}")


class ScheduleKeys(msgspec.Struct, frozen=True):
    """`due`, `claimed` and `overdue` of a kind."""

    due: Key
    claimed: Key
    overdue: Key


def schedule(kind: str) -> ScheduleKeys:
    """All keys of the schedule of a kind."""
    return ScheduleKeys(due(kind), claimed(kind), overdue(kind))


def overdue(kind: str) -> Key:
    """Zset: id -> ms at which its claim lapsed, for work that has not begun since."""
    return Key(f"cw:overdue:{kind}")


def claimed(kind: str) -> Key:
    """Zset: id -> ms at which the claim lapses; the score is also the claim's token. An id is in
    `due` or in `claimed`, never in both. An outbox that is held back is claimed without a worker
    until then, so that no event wakes it earlier."""
    return Key(f"cw:claimed:{kind}")


def lease(kind: str, owned_id: str) -> Key:
    """String: the random token of the worker that holds the lease. Expires with the lease."""
    return Key(f"cw:lease:{kind}:{owned_id}")


def completed(kind: str) -> Key:
    """Zset: integration that is polled -> ms of its last complete poll, or of its first turn if
    there was none. `kind` is `delta`, which full polls count for too, or `full`. Lasts."""
    return Key(f"cw:completed:{kind}")


SCHEDULERS = Key("cw:schedulers")  # zset: scheduler -> ms of its last turn; expires after 7 days
PROCESSES = Key("cw:processes")  # zset: JSON of a `Process` -> ms it lives; expires
RESTORING = Key("cw:restoring")  # string: a backup is being restored; deleted at its end
CONTROL = Key("cw:control")  # hash: "polling" or "delivery" -> ms since which it is paused; lasts


def budget(credential_id: str) -> Key:
    """Hash: a credential's rate limit: `limit`, `remaining`, `reset_at` (ms), `window` (its length
    in ms), `hold` (ms until which nothing is sent), and the ms of the last assigned slot: `line`
    for new polls, `again` for polls whose turn was in vain, `deltas` for a delta. Expires when all
    of these times have passed."""
    return Key(f"cw:budget:{credential_id}")


# --- our own network ------------------------------------------------------------------------

NETWORK_UNREACHABLE = Key("cw:network:unreachable")  # zset: receiver -> ms; expires after a minute
NETWORK_REACHED = Key("cw:network:reached")  # zset: receiver -> ms; expires after a minute

# --- metrics --------------------------------------------------------------------------------

# hash: gauges that scripts keep true (pending, dead, state:<of integrations>, outbox:<state>, ...)
TOTALS = Key("cw:totals")


def counters(run_id: str) -> Key:
    """Hash: counter -> value, for one run of the Redis server. Expires 7 days after its
    last increment, so that a restart of the server reads as a reset."""
    return Key(f"cw:counters:{run_id}")


# zset: packed sample of counters and gauges -> ms at which its minute ended; the latest 2,881.
# Expires 48 hours after the last
HISTORY_MINUTES = Key("cw:history:minutes")
# zset: packed period -> ms at which its hour ended; the latest 1,440. Expires 60 days after
# the last
HISTORY_HOURS = Key("cw:history:hours")

# --- RQ's keys for the status page, because RQ 3 has no asynchronous interface ---------------

QUEUES = ("coursewire-poll", "coursewire-deliver", "coursewire-maintain")
RQ_WORKERS = Key("rq:workers")  # set: keys of the workers
RQ_QUEUES = Key("rq:queues")  # set: keys of the queues


def rq_workers(queue: str) -> Key:
    """Set: keys of the workers of a queue, some of which may have died."""
    return Key(f"rq:workers:{queue}")


def rq_queue(name: str) -> Key:
    """List: ids of waiting jobs."""
    return Key(f"rq:queue:{name}")


def rq_started(name: str) -> Key:
    """Zset: running executions."""
    return Key(f"rq:wip:{name}")


def rq_failed(name: str) -> Key:
    """Zset: failed jobs, for a day."""
    return Key(f"rq:failed:{name}")


OURS = "cw:*"  # the pattern of all of our keys, without those of RQ
# Prefixes of keys about running processes, or about one run of the server: a backup leaves them
# out. A smaller restored counter would look like an increase to Prometheus.
MOMENTARY = ("cw:lease:", PROCESSES, "cw:counters:", RESTORING)

# Keys that may live without an expiry; a test fails on any other.
LASTING = (
    "cw:api_key:",
    "cw:api_keys",
    "cw:audit",
    "cw:credential:",
    "cw:credentials",
    "cw:integration:",
    "cw:integrations",
    "cw:upstreams",
    "cw:subscription:",
    "cw:subscriptions",
    "cw:catalogue:",
    "cw:quarantine:",
    "cw:held:",
    "cw:review:",
    "cw:decided:",
    "cw:polls:",
    "cw:events",
    "cw:outbox:",
    "cw:attempts:",
    "cw:due:",
    "cw:claimed:",
    "cw:overdue:",
    "cw:completed:",
    "cw:totals",
    "cw:control",
)
