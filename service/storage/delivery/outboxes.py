"""Outboxes: the ordered queue of events that a subscription has not received yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Literal, cast

import msgspec

from service.domain.delivery.circuit_breaker import Breaker
from service.domain.delivery.outbox_window import Entry
from service.domain.delivery.push_rate import Bucket
from service.domain.delivery.subscription import Subscription
from service.domain.errors import LeaseLostError
from service.domain.events.identifiers import position_ms, sort_key
from service.ids import new_token
from service.storage.delivery.outbox_scripts import (
    AttemptArgument,
    BeginTurns,
    ClaimedOutbox,
    DeathArgument,
    Due,
    NoteUnreachable,
    OutboxAsFound,
    RecordAttempts,
    RecordedOutbox,
    ReleaseOutbox,
    ReplayedArgument,
    Result,
    RetryArgument,
    SkipOutbox,
    Standing,
)
from service.storage.events.announcing import RENDERINGS, Notices, announced
from service.storage.redis import keys
from service.storage.redis.batcher import Batcher
from service.storage.redis.counters import Counters
from service.storage.redis.hashes import read_fields
from service.storage.redis.keys import QueueKeys
from service.storage.redis.scripts import run
from service.storage.redis.streams import StreamEntry, read_stream_back
from service.storage.scheduling.leases import Lease

if TYPE_CHECKING:
    from redis.asyncio import Redis

_BY_LETTER = {letter.encode(): rendering for rendering, letter in RENDERINGS.items()}
EXPIRED = "the event is older than the retention"
NOT_GRANTED = "the API key that the subscription belongs to was revoked, or may not see the event"

Released = Literal["lost", "idle", "due"]

_BEGUN_AT_ONCE = 25  # outboxes in one script; Redis is blocked while the script runs
_RECORDED_AT_ONCE = 50  # attempts in one script, except if a single outbox has more
_SKIPPED_AT_ONCE = 1_000  # entries of an outbox removed in one script
READ = 200  # entries or retries in one read
CURSOR_LIFETIME_MS = 900_000  # then everything is read again, to recover from any accident
_decode_breaker = msgspec.json.Decoder(Breaker).decode
_decode_subscription = msgspec.json.Decoder(Subscription).decode
_decode_bucket = msgspec.json.Decoder(Bucket).decode


class Queue(Enum):
    """The two queues of an outbox: new events and replayed events."""

    LIVE = "live"
    REPLAYED = "replayed"

    def keys(self, subscription_id: str) -> QueueKeys:
        """Its keys."""
        of = keys.live_queue if self is Queue.LIVE else keys.replayed_queue
        return of(subscription_id)


class OutboxDepth(msgspec.Struct, frozen=True):
    """The size of an outbox; `oldest_pending_at` is epoch ms. `parked`: only probes are sent;
    `replaying`: events are being replayed, or will be."""

    pending: int
    dead: int
    oldest_pending_at: int | None
    parked: bool = False
    replaying: bool = False


class OpenedOutbox(msgspec.Struct, frozen=True, kw_only=True):
    """The state at the start of a sender's turn.

    `now` is the clock of Redis; `start` is the position from which to read, after everything before
    it was read since `scanned_at`, and `entries` are the first ones there; `resumed` changes with
    each resume of the subscription, `emptied` with each removal of unsent entries; `failing` counts
    courses. `subscription` has the `version`; `secrets`, `headers` and `client_certificate` (empty
    if it has none) are its encrypted values. `replayed` is the number of replayed entries, with the
    same facts about these, and `unfed` the replays that have more to add.
    """

    now: int
    breaker: Breaker
    bucket: Bucket | None
    resumed: bytes
    emptied: bytes
    start: str
    scanned_at: int
    entries: list[Entry]
    failing: int
    subscription: Subscription
    version: int
    replayed: int
    replayed_start: str
    replayed_scanned_at: int
    replayed_failing: int
    unfed: int
    secrets: bytes
    headers: bytes
    client_certificate: bytes

    @classmethod
    def of(cls, found: OutboxAsFound, record: bytes) -> OpenedOutbox:
        """The state as found, with the subscription of this record."""
        return cls(
            now=found.now,
            breaker=_decode_breaker(found.breaker) if found.breaker else Breaker(),
            bucket=_decode_bucket(found.bucket) if found.bucket else None,
            resumed=found.resumed,
            emptied=found.emptied,
            start=found.start,
            scanned_at=found.scanned_at,
            entries=[
                Entry(one.position, one.order_key, _BY_LETTER[one.rendering])
                for one in found.entries
            ],
            failing=found.failing,
            subscription=_decode_subscription(record),
            version=found.version,
            replayed=found.replayed,
            replayed_start=found.replayed_start,
            replayed_scanned_at=found.replayed_scanned_at,
            replayed_failing=found.replayed_failing,
            unfed=found.unfed,
            secrets=found.secrets,
            headers=found.headers,
            client_certificate=found.client_certificate,
        )


class Failing(msgspec.Struct, frozen=True):
    """An entry that has failed: `attempts` counts those of the schedule and `sent` all of them; its
    next attempt is due at `due_at`, epoch ms of Redis."""

    entry: Entry
    attempts: int
    sent: int
    due_at: int


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that has ended, as the outbox records it. `attempts` counts those of the schedule,
    `sent` all of them. `result` is S (delivered), R (retry in `wait_ms`) or D (dead for `reason`);
    `record` is the attempt's JSON, empty if no attempt was made.
    """

    entry: Entry
    attempts: int
    sent: int
    result: Result
    wait_ms: int = 0
    reason: str = ""
    record: bytes = b""


class OutboxChange(msgspec.Struct, frozen=True, kw_only=True):
    """The consequences of attempts for the whole outbox. `breaker` None leaves it unchanged;
    `forward` makes every retry due now; `reached` names the receiver if it was reached; `disabled`
    is the new subscription record, and `as_read` the record that it replaces; `last` returns an
    outbox to the schedule that has become empty.
    """

    resumed: bytes
    breaker: Breaker | None = None
    bucket: Bucket | None = None
    forward: bool = False
    reached: str = ""
    as_read: bytes = b""
    disabled: bytes = b""
    last: bool = False


class Outboxes:
    """Reads outboxes and records the outcomes of their entries."""

    def __init__(self, redis: Redis, counters: Counters) -> None:
        self._redis = redis
        self._counters = counters
        self._beginning = Batcher(self._begin, _BEGUN_AT_ONCE)
        self._recording = Batcher(
            self._record, _RECORDED_AT_ONCE, lambda outbox: len(outbox.attempts)
        )

    async def begin(self, lease: Lease, claim: int) -> OutboxAsFound | None:
        """Begins a turn on a claimed outbox; None if the claim is stale or a worker holds the
        lease."""
        subscription_id = lease.owned_id
        outbox = ClaimedOutbox(
            lease=lease.fence,
            id=subscription_id,
            claim=claim,
            outbox_state=keys.outbox_state(subscription_id),
            subscription=keys.subscription(subscription_id),
            live=keys.live_queue(subscription_id),
            replayed=keys.replayed_queue(subscription_id),
            replay_queue=keys.replay_queue(subscription_id),
        )
        return await self._beginning.submit(outbox)

    async def read(
        self, subscription_id: str, start: str, count: int, queue: Queue = Queue.LIVE
    ) -> list[Entry]:
        """At most `count` entries from `start` on, oldest first; "(" before it excludes it."""
        found = cast(
            "list[StreamEntry]",
            await self._redis.xrange(queue.keys(subscription_id).stream, start, "+", count=count),
        )
        return [_entry(entry_id, fields) for entry_id, fields in found]

    async def pending(self, subscription_id: str, first: str, last: str) -> set[str]:
        """The positions from `first` to `last` that are on the outbox."""
        found = cast(
            "list[StreamEntry]",
            await self._redis.xrange(keys.outbox(subscription_id), first, last),
        )
        return {entry_id.decode() for entry_id, _ in found}

    async def failing(
        self, subscription_id: str, order_keys: Sequence[str], queue: Queue = Queue.LIVE
    ) -> set[str]:
        """The courses among these whose heads have failed and wait."""
        if not order_keys:
            return set()
        found = await read_fields(self._redis, queue.keys(subscription_id).failing, order_keys)
        return {key for key, state in zip(order_keys, found, strict=True) if state is not None}

    async def retries(
        self, subscription_id: str, until: int | None, count: int, queue: Queue = Queue.LIVE
    ) -> tuple[list[Failing], int | None]:
        """At most `count` retries due by `until` (epoch ms of Redis; None: all), the earliest
        first, and the time at which the first of the others is due."""
        retries = cast(
            "list[tuple[bytes, float]]",
            await self._redis.zrange(
                queue.keys(subscription_id).retries, 0, count, withscores=True
            ),
        )
        later = int(retries[count][1]) if len(retries) > count else None
        chosen: list[tuple[bytes, int]] = []
        for key, due_at in retries[:count]:
            if until is not None and due_at > until:
                later = int(due_at)
                break
            chosen.append((key, int(due_at)))
        states = (
            await read_fields(
                self._redis,
                queue.keys(subscription_id).failing,
                [key.decode() for key, _ in chosen],
            )
            if chosen
            else []
        )
        failing = []
        for (key, due_at), state in zip(chosen, states, strict=True):
            if state is not None:
                position, attempts, sent, rendering, *replayed = state.split(b" ")
                entry = Entry(
                    position.decode(),
                    key.decode(),
                    _BY_LETTER[rendering],
                    *(part.decode() for part in replayed),
                )
                failing.append(Failing(entry, int(attempts), int(sent), due_at))
        return failing, later

    async def note_unreachable(self, receiver: str) -> tuple[int, int]:
        """Records that a receiver was unreachable; returns how many receivers recently were, and
        how many were tried."""
        found = await run(self._redis, NoteUnreachable(receiver=receiver))
        return found.unreachable, found.tried

    async def record(
        self,
        lease: Lease,
        recorded: Sequence[Recorded],
        increments: Counter[str],
        change: OutboxChange,
        notices: Notices | None = None,
    ) -> Standing:
        """Records attempts under a lease, and announces changes of the outbox's state.

        Raises LeaseLostError if the lease is lost, StaleSubscriptionsError if the subscription to
        disable was edited, or others since the snapshot of `notices`; then nothing was written.
        """
        subscription_id = lease.owned_id
        breaker, bucket = change.breaker, change.bucket
        parked = breaker is not None and breaker.parked and not change.disabled
        outbox = RecordedOutbox(
            lease=lease.fence,
            id=subscription_id,
            outbox_state=keys.outbox_state(subscription_id),
            subscription=keys.subscription(subscription_id),
            live=keys.live_queue(subscription_id),
            replayed=keys.replayed_queue(subscription_id),
            replay_queue=keys.replay_queue(subscription_id),
            replayed_order=keys.replayed_order(subscription_id),
            dead=keys.dead(subscription_id),
            backfilled=keys.backfilled(subscription_id),
            records=keys.records(subscription_id),
            attempts=[_argument(one) for one in recorded],
            increments=increments,
            resumed=change.resumed,
            breaker=None if breaker is None else msgspec.json.encode(breaker),
            parked_at=breaker.parked_at or 0 if breaker is not None and parked else None,
            failing=breaker is not None and breaker.failing,
            bucket=None if bucket is None else msgspec.json.encode(bucket),
            forward=change.forward,
            receiver=change.reached,
            as_read=change.as_read or None,
            disabled=change.disabled or None,
            last=change.last,
            replay_prefix=keys.replay(subscription_id, ""),
        )
        if notices is None and not change.disabled:
            standing = await self._recording.submit(outbox)
        else:
            (standing,) = await self._record([outbox], notices)
        if standing is None:
            raise LeaseLostError
        return standing

    async def _begin(self, outboxes: Sequence[ClaimedOutbox]) -> list[OutboxAsFound | None]:
        begin = BeginTurns(outboxes=outboxes, cursor_ms=CURSOR_LIFETIME_MS, most=READ)
        return await run(self._redis, begin)

    async def _record(
        self, outboxes: Sequence[RecordedOutbox], notices: Notices | None = None
    ) -> list[Standing | None]:
        record = RecordAttempts(
            outboxes=outboxes, announced=await announced(notices, self._counters)
        )
        return await run(self._redis, record)

    async def release(
        self,
        lease: Lease,
        due: Due,
        *,
        start: str = "-",
        held_ms: int = 0,
        resumed: bytes = b"",
        bucket: Bucket | None = None,
        scanned_at: int = 0,
        feed_ms: int = 0,
        replayed_start: str = "",
        replayed_scanned_at: int = 0,
        emptied: bytes = b"",
    ) -> Released:
        """Returns an outbox to the schedule.

        `start` is the position from which the next sender reads and `scanned_at` the time when the
        outbox was last read from its beginning; `held_ms` is the time in which no event wakes a
        `held` outbox; `feed_ms` the wait of a replay. `replayed_start` and `replayed_scanned_at`
        are the same for replayed entries, if they were read; `resumed` and `emptied` are as read.
        """
        subscription_id = lease.owned_id
        release = ReleaseOutbox(
            lease=lease.fence,
            outbox_state=keys.outbox_state(subscription_id),
            live=keys.live_queue(subscription_id),
            replayed=keys.replayed_queue(subscription_id),
            replay_queue=keys.replay_queue(subscription_id),
            id=subscription_id,
            start=start,
            due=due,
            held_ms=held_ms,
            resumed=resumed,
            bucket=None if bucket is None else msgspec.json.encode(bucket),
            scanned_at=scanned_at,
            feed_ms=feed_ms,
            replayed_start=replayed_start,
            replayed_scanned_at=replayed_scanned_at,
            emptied=emptied,
        )
        try:
            return "due" if await run(self._redis, release) else "idle"
        except LeaseLostError:
            return "lost"

    async def skip(self, subscription_id: str, until: int | None) -> int:
        """Removes pending entries from an outbox: events up to `until` (epoch ms), or all present
        ones; returns their number. They count neither as delivered nor as dead."""
        outbox = keys.outbox(subscription_id)
        last = str(until)
        if until is None:
            newest = await read_stream_back(self._redis, outbox, None, 1)
            if not newest:
                return 0
            last = newest[0][0].decode()
        total = 0
        while True:
            skip = SkipOutbox(
                live=keys.live_queue(subscription_id),
                outbox_state=keys.outbox_state(subscription_id),
                counters=await self._counters.key(),
                last=last,
                emptied=new_token(),
                most=_SKIPPED_AT_ONCE,
            )
            gone = await run(self._redis, skip)
            total += gone
            if gone < _SKIPPED_AT_ONCE:
                return total

    async def depth_many(self, subscription_ids: Sequence[str]) -> list[OutboxDepth]:
        """The size of each outbox."""
        if not subscription_ids:
            return []
        async with self._redis.pipeline(transaction=False) as pipeline:
            for subscription_id in subscription_ids:
                pipeline.hexists(keys.outbox_state(subscription_id), "parked")
                pipeline.xlen(keys.outbox(subscription_id))
                pipeline.zcard(keys.outbox_dead(subscription_id))
                pipeline.xrange(keys.outbox(subscription_id), "-", "+", count=1)
                pipeline.xlen(keys.replayed(subscription_id))
                pipeline.llen(keys.replay_queue(subscription_id))
            found = await pipeline.execute()
        depths = []
        for at in range(0, len(found), 6):
            parked, pending, dead, oldest, replayed, unfed = found[at : at + 6]
            oldest_at = position_ms(oldest[0][0].decode()) if oldest else None
            replaying = replayed + unfed > 0
            depths.append(OutboxDepth(pending, dead, oldest_at, bool(parked), replaying))
        return depths


def _argument(recorded: Recorded) -> AttemptArgument:
    entry, result = recorded.entry, recorded.result
    return AttemptArgument(
        order_key=entry.order_key,
        queue_position=entry.position,
        sort_key=sort_key(entry.event_position),
        record=recorded.record,
        replayed=ReplayedArgument(entry.replay, entry.event_position) if entry.replay else None,
        retry=RetryArgument(_head(recorded), recorded.wait_ms) if result == "R" else None,
        death=DeathArgument(recorded.attempts, RENDERINGS[entry.rendering], recorded.reason)
        if result == "D"
        else None,
    )


def _head(recorded: Recorded) -> str:
    entry = recorded.entry
    facts = (entry.position, recorded.attempts, recorded.sent, RENDERINGS[entry.rendering])
    replayed = (entry.replayed, entry.replay) if entry.replay else ()
    return " ".join(map(str, (*facts, *replayed)))


def _entry(entry_id: bytes, fields: dict[bytes, bytes]) -> Entry:
    return Entry(
        entry_id.decode(),
        fields[b"k"].decode(),
        _BY_LETTER[fields[b"r"]],
        fields.get(b"p", b"").decode(),
        fields.get(b"i", b"").decode(),
    )
