"""The scripts that an outbox's sender calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from service.domain.delivery.connectivity import WINDOW_MS
from service.storage.events.announcing import Announced
from service.storage.redis import keys
from service.storage.redis.counters import field
from service.storage.redis.keys import DeadKeys, Key, QueueKeys, RecordKeys, ScheduleKeys
from service.storage.redis.scripts import Script
from service.storage.scheduling.leases import Fence

MAX_ATTEMPT_RECORDS = 10_000  # kept per subscription

Due = Literal["now", "later", "held", "never"]
Result = Literal["S", "R", "D"]


class Standing(msgspec.Struct, frozen=True):
    """How the subscription stood when attempts were recorded: its last resume, when entries were
    last taken off its outbox unsent, and the version of all subscriptions."""

    resumed: bytes
    emptied: bytes
    version: int


class OutboxAsFound(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored of an outbox; see OpenedOutbox."""

    now: int
    breaker: bytes | None
    bucket: bytes | None
    resumed: bytes
    emptied: bytes
    cursor: str
    failing: int
    record: bytes | None
    version: int
    replayed: int
    replayed_cursor: str
    replayed_failing: int
    unfed: int
    secrets: bytes
    headers: bytes
    client_certificate: bytes


class OpenOutbox(Script[OutboxAsFound]):
    """Begins a sender's turn: what the outbox remembers. Where the last sender stopped is handed
    over and forgotten, so that a turn that breaks off is followed by one that looks at
    everything."""

    outbox_state: Key
    subscription: Key
    live: QueueKeys
    replayed: QueueKeys
    replay_queue: Key
    subscriptions_version: Key = keys.SUBSCRIPTIONS_VERSION


class AttemptArgument(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that has ended. `queue_position` is that of the entry on its queue, `position`
    that of its event in the log, and `sort_key` the sort key of that; `head` is what `failing`
    keeps of the entry."""

    order_key: str
    queue_position: str
    position: str
    sort_key: str
    replay: str | None
    result: Result
    head: str
    attempts: int
    rendering: str
    wait_ms: int = -1
    reason: str = ""
    record: bytes | None = None


class RecordAttempts(Script[Standing]):
    """Records attempts that have ended, before their courses move on, and what follows from them
    for the outbox: its breaker, and the disabling of a subscription. Begins with a
    removal, so that it still runs when Redis is at its memory limit. A repeated call changes and
    counts nothing. What is delivered on one queue is taken off the other one too, if it is a
    redelivery on either.

    `resumed` is as read. `breaker` None leaves it as it is; `parked_at` is since when it holds the
    outbox back, `failing` whether the last attempt failed. `forward` makes all retries due.
    `receiver` was connected to, if any. `as_read` is the subscription's record if it is to be
    `disabled`.

    Refuses with LEASE or SUBSCRIPTIONS. Announces `parked`, `unparked` and `disabled`.
    """

    lease: Fence
    outbox_state: Key
    subscription: Key
    live: QueueKeys
    replayed: QueueKeys
    replayed_order: Key
    dead: DeadKeys
    backfilled: Key
    records: RecordKeys
    announced: Announced
    unreachable: Key = keys.NETWORK_UNREACHABLE
    reached: Key = keys.NETWORK_REACHED
    attempts: Sequence[AttemptArgument]
    increments: Mapping[str, int]
    resumed: bytes
    breaker: bytes | None
    parked_at: int | None
    failing: bool
    bucket: bytes | None
    forward: bool
    receiver: str
    as_read: bytes | None
    disabled: bytes | None
    replay_prefix: str
    delivered_counter: str = field("deliveries_total", state="delivered")
    kept_records: int = MAX_ATTEMPT_RECORDS


class ReleaseOutbox(Script[bool]):
    """Gives an outbox back to the schedule: held back if its worker asks for that; due at once if
    it holds anything not yet looked at, if its worker asks for that, if it was resumed or emptied
    meanwhile, if a replay waits to be fed, or if it holds something for which no retry is listed
    (as after a server lost its last second); else at its next retry, else not at all.

    `start` is where the next sender reads on from (start of an XRANGE), the outbox having been read
    from its beginning to there since `scanned_at`; the same of what is replayed, '' if that was not
    read. `feed_ms` is for how long a replay waits to be fed. Returns whether the outbox is due now.
    Refuses with LEASE.
    """

    lease: Fence
    outbox_state: Key
    live: QueueKeys
    replayed: QueueKeys
    replay_queue: Key
    schedule: ScheduleKeys = keys.schedule("outboxes")
    id: str
    start: str
    due: Due
    held_ms: int
    resumed: bytes
    bucket: bytes | None
    scanned_at: int
    feed_ms: int
    replayed_start: str
    replayed_scanned_at: int
    emptied: bytes


class SkipOutbox(Script[int]):
    """Takes entries off an outbox unsent, up to the position `last`, the oldest first, in steps;
    returns how many. A sender at work finds out from `emptied`, which is random. Begins with a
    removal, so that it still runs when Redis is at its memory limit."""

    live: QueueKeys
    outbox_state: Key
    counters: Key
    totals: Key = keys.TOTALS
    last: str
    emptied: str
    most: int
    counter: str = field("deliveries_total", state="skipped")


class Reachability(msgspec.Struct, frozen=True):
    """How many receivers could not be connected to lately, and how many were tried: those and the
    ones reached since the first of these failures."""

    unreachable: int
    tried: int


class NoteUnreachable(Script[Reachability]):
    """Notes that a receiver could not be connected to, and returns how the others are doing."""

    unreachable: Key = keys.NETWORK_UNREACHABLE
    reached: Key = keys.NETWORK_REACHED
    receiver: str
    window_ms: int = WINDOW_MS
