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

MAX_ATTEMPT_RECORDS = 10_000  # records kept per subscription

Due = Literal["now", "later", "held", "never"]
Result = Literal["S", "R", "D"]


class Standing(msgspec.Struct, frozen=True):
    """The subscription's state when attempts were recorded: its last resume, the last removal of
    unsent entries, the version of all subscriptions, the number of entries on each queue, and
    whether the outbox was returned to the schedule. `news` is false if the call recorded no
    attempt, because all were recorded before, or were attempts at removed entries."""

    news: bool
    resumed: bytes
    emptied: bytes
    version: int
    pending: int
    replaying: int
    released: bool


class EntryAsFound(msgspec.Struct, frozen=True):
    """An entry of the live queue."""

    position: str
    order_key: str
    rendering: bytes


class OutboxAsFound(msgspec.Struct, frozen=True, kw_only=True):
    """The stored state of an outbox; see OpenedOutbox."""

    now: int
    breaker: bytes | None
    bucket: bytes | None
    resumed: bytes
    emptied: bytes
    start: str
    scanned_at: int
    entries: list[EntryAsFound]
    failing: int
    record: bytes | None
    version: int
    replayed: int
    replayed_start: str
    replayed_scanned_at: int
    replayed_failing: int
    unfed: int
    secrets: bytes
    headers: bytes
    client_certificate: bytes


class ClaimedOutbox(msgspec.Struct, frozen=True, kw_only=True):
    """A claimed outbox, and the lease to take for it."""

    lease: Fence
    id: str
    claim: int
    outbox_state: Key
    subscription: Key
    live: QueueKeys
    replayed: QueueKeys
    replay_queue: Key


class BeginTurns(Script[list[OutboxAsFound | None]]):
    """Takes the leases of outboxes, and returns for each its state and at most `most` entries from
    the position on at which the last sender stopped; None if the claim is stale or a worker holds
    the lease.

    It removes that position, so that the turn after an interrupted one reads everything. So does a
    turn that finds a position older than `cursor_ms`.
    """

    schedule: ScheduleKeys = keys.schedule("outboxes")
    outboxes: Sequence[ClaimedOutbox]
    subscriptions_version: Key = keys.SUBSCRIPTIONS_VERSION
    cursor_ms: int
    most: int


class ReplayedArgument(msgspec.Struct, frozen=True):
    """A replayed entry: the id of its replay, and the position of its event in the log."""

    replay: str
    position: str


class RetryArgument(msgspec.Struct, frozen=True):
    """The next attempt in `wait_ms`; `head` is the entry's value in `failing`."""

    head: str
    wait_ms: int


class DeathArgument(msgspec.Struct, frozen=True):
    """The end of a delivery that failed, after `attempts` of the schedule."""

    attempts: int
    rendering: str
    reason: str


class AttemptArgument(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that has ended: delivered, unless it has a `retry` or a `death`. `queue_position`
    is the entry's position on its queue, `sort_key` the sort key of its event's position. Most
    attempts are delivered, so they carry nothing else."""

    order_key: str
    queue_position: str
    sort_key: str
    record: bytes | None
    replayed: ReplayedArgument | None
    retry: RetryArgument | None
    death: DeathArgument | None


class RecordedOutbox(msgspec.Struct, frozen=True, kw_only=True):
    """Attempts at the events of one outbox, and their consequences for it: its breaker, and the
    disabling of the subscription.

    `resumed` is as read. `breaker` None leaves it unchanged; `parked_at` is the time since which it
    holds the outbox back, `failing` whether the last attempt failed. `forward` makes all retries
    due. `receiver` is the receiver that was reached, if any. `as_read` is the subscription's record
    if it becomes `disabled`. If these are the `last` attempts of the turn, and they leave the
    outbox empty, it is returned to the schedule.
    """

    lease: Fence
    id: str
    outbox_state: Key
    subscription: Key
    live: QueueKeys
    replayed: QueueKeys
    replayed_order: Key
    replay_queue: Key
    dead: DeadKeys
    backfilled: Key
    records: RecordKeys
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
    last: bool
    replay_prefix: str


class RecordAttempts(Script[list[Standing | None]]):
    """Records attempts that have ended, before later events of their courses are sent. Returns the
    standing of each outbox; None for an outbox whose lease is lost. Nothing is written for it.

    Begins with a removal, so that it runs even at Redis's memory limit. A repeated call changes and
    counts nothing. A delivery on one queue also removes the event from the other one, if either is
    a redelivery.

    Refuses with SUBSCRIPTIONS. Announces `parked`, `unparked` and `disabled` of a single outbox.
    """

    schedule: ScheduleKeys = keys.schedule("outboxes")
    outboxes: Sequence[RecordedOutbox]
    announced: Announced
    unreachable: Key = keys.NETWORK_UNREACHABLE
    reached: Key = keys.NETWORK_REACHED
    delivered_counter: str = field("deliveries_total", state="delivered")
    kept_records: int = MAX_ATTEMPT_RECORDS


class ReleaseOutbox(Script[bool]):
    """Returns an outbox to the schedule.

    The outbox is held back if its worker requests that. It is due at once if it has unread entries,
    if its worker requests that, if it was resumed or emptied meanwhile, if a replay waits to be
    fed, or if it has an entry without a listed retry (as after a server lost its last second).
    Otherwise it is due at its next retry, or never. `start` is the position from which the next
    sender reads (start of an XRANGE); the outbox before it has been read since `scanned_at`. The
    same applies to the replayed entries, with '' if they were not read. `feed_ms` is the wait of a
    replay until it is fed. Returns whether the outbox is due now. Refuses with LEASE.
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
    """Removes unsent entries from an outbox, up to the position `last`, the oldest first, in steps;
    returns their number. A running sender detects the random `emptied`. Begins with a removal, so
    that it runs even at Redis's memory limit."""

    live: QueueKeys
    outbox_state: Key
    counters: Key
    totals: Key = keys.TOTALS
    last: str
    emptied: str
    most: int
    counter: str = field("deliveries_total", state="skipped")


class Reachability(msgspec.Struct, frozen=True):
    """How many receivers were recently unreachable, and how many were tried: those and the ones
    reached since the first of these failures."""

    unreachable: int
    tried: int


class NoteUnreachable(Script[Reachability]):
    """Records that a receiver was unreachable, and returns the state of the others."""

    unreachable: Key = keys.NETWORK_UNREACHABLE
    reached: Key = keys.NETWORK_REACHED
    receiver: str
    window_ms: int = WINDOW_MS
