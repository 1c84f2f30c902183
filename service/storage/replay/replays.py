"""Replays of subscriptions: created, fed in parts by the outbox's sender, and ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, cast

import msgspec

from service.domain.errors import ConflictError, NotFoundError, StaleRecordError
from service.domain.replay.replay import Replay, ReplayProgress, Which
from service.ids import event_suffixes, new_token
from service.storage.events.stored_bodies import compressed
from service.storage.redis import keys
from service.storage.redis.counters import Counters
from service.storage.redis.keys import Key, QueueKeys, ScheduleKeys
from service.storage.redis.paging import IndexPosition, all_ids, page_of_ids
from service.storage.redis.scripts import Script, run
from service.storage.redis.scripts.statuses import RefusedError, Status
from service.storage.redis.sorted_positions import sorted_positions
from service.storage.scheduling.leases import Fence, Lease

if TYPE_CHECKING:
    from redis.asyncio import Redis

MAX_KEPT = 100  # listed replays of a subscription, and more only if the oldest have not ended
MAX_AHEAD = 10_000  # entries at which no more are added, whatever they wait for

_decode = msgspec.json.Decoder(Replay).decode


class Replayed(msgspec.Struct, frozen=True):
    """An event to send again: its order key, the letter of its rendering, and its position in the
    log."""

    order_key: str
    rendering: str
    position: str


class Backfilled(msgspec.Struct, frozen=True, kw_only=True):
    """An event that is created for one outbox. It gets its id and its position when it is added."""

    order_key: str
    rendering: str
    type: str
    integration_id: str
    course_id: str
    sequence: int
    facts: bytes
    body: bytes


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """The next part of a replay: `scanned` events up to `position`, of which `entries` are sent and
    `left_out` cannot be. `last` means that no part follows; `note` is a message for people, and
    with `error` the replay has failed. At most `most` entries are replayed at once, and
    `increments` are added to the counters."""

    position: str
    scanned: int
    entries: Sequence[Replayed | Backfilled]
    last: bool
    left_out: int = 0
    note: str = ""
    error: str = ""
    most: int = MAX_AHEAD
    increments: Mapping[str, int] = {}


class CreateReplay(Script[None]):
    """Stores a replay and queues it, or adds its one event to the replayed entries. The oldest
    ended replays beyond `kept` are removed. Refuses with GONE if the subscription does not
    exist."""

    subscription: Key
    replays: Key
    replay: Key
    replay_queue: Key
    replayed: Key
    replayed_order: Key
    totals: Key = keys.TOTALS
    schedule: ScheduleKeys = keys.schedule("outboxes")
    subscription_id: str
    id: str
    record: bytes
    only: Replayed | None
    replay_prefix: str
    kept: int


class BackfilledEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event that is created for one outbox, in the form that scripts take."""

    type: str
    integration_id: str
    course_id: str
    suffix: str
    sequence: int
    facts: bytes
    body: bytes


class FedEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry to add: an event at `position` of the log, or a created one."""

    order_key: str
    rendering: str
    position: str | None = None
    event: BackfilledEvent | None = None


class FeedReplay(Script[None]):
    """Adds the next part of a replay to the replayed entries, together with its progress, so that
    the replay continues there after a crash.

    `left_out` counts events that cannot be sent; `note` is a message for people, and with a
    `failure` the replay fails. Refuses with LEASE, with STALE if the replay is not at
    `position_as_read`, and with FULL if `most` entries are being replayed.
    """

    lease: Fence
    replay: Key
    replay_queue: Key
    replayed: Key
    replayed_order: Key
    backfilled: Key
    counters: Key
    totals: Key = keys.TOTALS
    id: str
    position_as_read: str
    position: str
    scanned: int
    last: bool
    most: int
    note: str
    failure: str
    left_out: int
    increments: Mapping[str, int]
    entries: Sequence[FedEntry]


class CancelReplay(Script[None]):
    """Ends a replay and removes its undelivered entries. A running sender detects the random
    `emptied`. Begins with a removal, so that it runs even at Redis's memory limit. Refuses with
    GONE or OVER."""

    replay: Key
    replay_queue: Key
    replayed: QueueKeys
    replayed_order: Key
    outbox_state: Key
    backfilled: Key
    totals: Key = keys.TOTALS
    id: str
    emptied: str


class Replays:
    """Stores replays."""

    def __init__(self, redis: Redis, counters: Counters) -> None:
        self._redis = redis
        self._counters = counters

    async def create(self, replay: Replay, only: Replayed | None = None) -> None:
        """Stores a replay, to be fed after earlier ones; `only` is the one event of a redelivery,
        which need not wait for them. Raises NotFoundError."""
        subscription_id = replay.subscription_id
        create = CreateReplay(
            subscription=keys.subscription(subscription_id),
            replays=keys.replays(subscription_id),
            replay=keys.replay(subscription_id, replay.id),
            replay_queue=keys.replay_queue(subscription_id),
            replayed=keys.replayed(subscription_id),
            replayed_order=keys.replayed_order(subscription_id),
            subscription_id=subscription_id,
            id=replay.id,
            record=msgspec.json.encode(replay),
            only=only,
            replay_prefix=keys.replay(subscription_id, ""),
            kept=MAX_KEPT,
        )
        try:
            await run(self._redis, create)
        except RefusedError:
            raise NotFoundError(f"there is no subscription {subscription_id}") from None

    async def get(self, subscription_id: str, replay_id: str) -> tuple[Replay, ReplayProgress]:
        """One replay. Raises NotFoundError."""
        (found,) = await self._get_many(subscription_id, [replay_id])
        if found is None:
            raise _not_found(subscription_id, replay_id)
        return found

    async def page(
        self, subscription_id: str, limit: int, after: IndexPosition | None = None
    ) -> tuple[list[tuple[Replay, ReplayProgress]], IndexPosition | None]:
        """At most `limit` replays in the order of their requests, and the next position."""
        ids, position = await page_of_ids(self._redis, keys.replays(subscription_id), limit, after)
        found = await self._get_many(subscription_id, ids)
        return [one for one in found if one is not None], position

    async def cancel(self, subscription_id: str, replay_id: str) -> None:
        """Ends a replay and drops its undelivered entries. Raises NotFoundError, or ConflictError
        if it has ended."""
        cancel = CancelReplay(
            replay=keys.replay(subscription_id, replay_id),
            replay_queue=keys.replay_queue(subscription_id),
            replayed=keys.replayed_queue(subscription_id),
            replayed_order=keys.replayed_order(subscription_id),
            outbox_state=keys.outbox_state(subscription_id),
            backfilled=keys.backfilled(subscription_id),
            id=replay_id,
            emptied=new_token(),
        )
        try:
            await run(self._redis, cancel)
        except RefusedError as refused:
            if refused.status is Status.GONE:
                raise _not_found(subscription_id, replay_id) from None
            raise ConflictError(f"replay {replay_id} has ended already") from None

    async def next(self, subscription_id: str) -> tuple[Replay, ReplayProgress] | None:
        """The replay to continue, None if there is none."""
        replay_id = await self._redis.lindex(keys.replay_queue(subscription_id), 0)
        if replay_id is None:
            return None
        (found,) = await self._get_many(subscription_id, [cast("bytes", replay_id).decode()])
        return found

    async def feed(
        self, lease: Lease, replay: Replay, progress: ReplayProgress, part: Part
    ) -> Literal["OK", "FULL", "STALE"]:
        """Adds the part that follows `progress` to the replayed entries. FULL if there are too
        many, STALE if the replay has progressed or was cancelled; then nothing was written. Raises
        LeaseLostError."""
        subscription_id = replay.subscription_id
        feed = FeedReplay(
            lease=lease.fence,
            replay=keys.replay(subscription_id, replay.id),
            replay_queue=keys.replay_queue(subscription_id),
            replayed=keys.replayed(subscription_id),
            replayed_order=keys.replayed_order(subscription_id),
            backfilled=keys.backfilled(subscription_id),
            counters=await self._counters.key(),
            id=replay.id,
            position_as_read=progress.position,
            position=part.position,
            scanned=part.scanned,
            last=part.last,
            most=part.most,
            note=part.note,
            failure=part.error,
            left_out=part.left_out,
            increments=part.increments,
            entries=_entries(part.entries),
        )
        try:
            await run(self._redis, feed)
        except StaleRecordError:
            return "STALE"
        except RefusedError:
            return "FULL"
        return "OK"

    async def unfinished(self, subscription_id: str, which: Which) -> str | None:
        """The id of a replay of that kind that has not ended, None if there is none."""
        ids = await all_ids(self._redis, keys.replays(subscription_id))
        for found in await self._get_many(subscription_id, ids):
            if found is not None and found[0].which == which and found[1].finished_at is None:
                return found[0].id
        return None

    async def ahead(self, subscription_id: str) -> tuple[int, int]:
        """The number of replayed entries, and the bytes of backfilled events."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.xlen(keys.replayed(subscription_id))
            pipeline.memory_usage(keys.backfilled(subscription_id))
            entries, size = await pipeline.execute()
        return int(entries), int(size or 0)

    async def being_replayed(self, subscription_id: str, first: str, last: str) -> set[str]:
        """The positions in the log from `first` to `last` whose events are being replayed."""
        order = keys.replayed_order(subscription_id)
        return {*await sorted_positions(self._redis, order, first, last)}

    async def _get_many(
        self, subscription_id: str, replay_ids: Sequence[str]
    ) -> list[tuple[Replay, ReplayProgress] | None]:
        if not replay_ids:
            return []
        async with self._redis.pipeline(transaction=False) as pipeline:
            for replay_id in replay_ids:
                pipeline.hgetall(keys.replay(subscription_id, replay_id))
            found = await pipeline.execute()
        return [_read(one) if one else None for one in found]


def _entries(entries: Sequence[Replayed | Backfilled]) -> list[FedEntry]:
    suffixes = iter(event_suffixes(sum(isinstance(one, Backfilled) for one in entries)))
    return [
        FedEntry(
            order_key=one.order_key,
            rendering=one.rendering,
            position=one.position if isinstance(one, Replayed) else None,
            event=_event(one, next(suffixes)) if isinstance(one, Backfilled) else None,
        )
        for one in entries
    ]


def _event(one: Backfilled, suffix: str) -> BackfilledEvent:
    return BackfilledEvent(
        type=one.type,
        integration_id=one.integration_id,
        course_id=one.course_id,
        suffix=suffix,
        sequence=one.sequence,
        facts=one.facts,
        body=compressed(one.body),
    )


def _read(stored: dict[bytes, bytes]) -> tuple[Replay, ReplayProgress]:
    record = stored.pop(b"record")
    facts = {name.decode(): value.decode() for name, value in stored.items()}
    return _decode(record), msgspec.convert(facts, ReplayProgress, strict=False)


def _not_found(subscription_id: str, replay_id: str) -> NotFoundError:
    return NotFoundError(f"there is no replay {replay_id} of subscription {subscription_id}")
