"""Replays of subscriptions: asked for, fed in parts by the lane's sender, and ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, cast

import msgspec

from service.domain.errors import ConflictError, LeaseLostError, NotFoundError
from service.domain.replays import Replay, ReplayProgress, Which
from service.storage import keys
from service.storage.counters import Counters, flatten
from service.storage.ids import event_suffixes, new_token
from service.storage.index import IndexPosition, all_ids, page_of_ids
from service.storage.leases import Lease
from service.storage.scripts import load
from service.storage.streams import StreamEntry

if TYPE_CHECKING:
    from redis.asyncio import Redis

MAX_KEPT = 100  # replays of a subscription that are listed, and all that have not ended
MAX_AHEAD = 10_000  # entries from which nothing more is added, whatever they wait for

_decode = msgspec.json.Decoder(Replay).decode


class Replayed(msgspec.Struct, frozen=True):
    """An event to be sent again: what it is ordered by, the letter of its rendering, and its
    position in the log."""

    order_key: str
    rendering: str
    position: str


class Backfilled(msgspec.Struct, frozen=True, kw_only=True):
    """An event that is made for one lane alone. It gets its id and its position when it enters."""

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
    `left_out` are not because of what they are. `last` if there is nothing behind it; `note` is to
    be said of the replay, and with `error` it has failed. No more than `most` are to be replayed
    at once, and `increments` is what it counts."""

    position: str
    scanned: int
    entries: Sequence[Replayed | Backfilled]
    last: bool
    left_out: int = 0
    note: str = ""
    error: str = ""
    most: int = MAX_AHEAD
    increments: Mapping[str, int] = {}


class Replays:
    """Stores replays."""

    def __init__(self, redis: Redis, counters: Counters) -> None:
        self._redis = redis
        self._counters = counters
        self._create = load(redis, "create_replay")
        self._feed = load(redis, "feed_replay")
        self._cancel = load(redis, "cancel_replay")

    async def create(self, replay: Replay, only: Replayed | None = None) -> None:
        """Stores a replay, to be fed behind those asked for before; `only` is the one event that
        it is of, which need not wait for them. Raises NotFoundError."""
        subscription_id = replay.subscription_id
        created = await self._create(
            keys=[
                keys.subscription(subscription_id),
                keys.replays(subscription_id),
                keys.replay(subscription_id, replay.id),
                keys.replay_queue(subscription_id),
                keys.replayed(subscription_id),
                keys.TOTALS,
                keys.due("lanes"),
                keys.claimed("lanes"),
            ],
            args=[
                subscription_id,
                replay.id,
                msgspec.json.encode(replay),
                MAX_KEPT,
                keys.replay(subscription_id, ""),
                *((only.order_key, only.rendering, only.position) if only is not None else ()),
            ],
        )
        if not created:
            raise NotFoundError(f"there is no subscription {subscription_id}")

    async def get(self, subscription_id: str, replay_id: str) -> tuple[Replay, ReplayProgress]:
        """One replay. Raises NotFoundError."""
        (found,) = await self._get_many(subscription_id, [replay_id])
        if found is None:
            raise _not_found(subscription_id, replay_id)
        return found

    async def page(
        self, subscription_id: str, limit: int, after: IndexPosition | None = None
    ) -> tuple[list[tuple[Replay, ReplayProgress]], IndexPosition | None]:
        """At most `limit` replays in the order in which they were asked for, and where to go
        on."""
        ids, position = await page_of_ids(self._redis, keys.replays(subscription_id), limit, after)
        found = await self._get_many(subscription_id, ids)
        return [one for one in found if one is not None], position

    async def cancel(self, subscription_id: str, replay_id: str) -> None:
        """Ends a replay; what of it has not been delivered is dropped. Raises NotFoundError, or
        ConflictError if it has ended."""
        status = await self._cancel(
            keys=[
                keys.replay(subscription_id, replay_id),
                keys.replay_queue(subscription_id),
                keys.replayed(subscription_id),
                keys.replayed_retries(subscription_id),
                keys.replayed_failing(subscription_id),
                keys.lane_state(subscription_id),
                keys.TOTALS,
                keys.backfilled(subscription_id),
            ],
            args=[replay_id, new_token()],
        )
        if status == b"GONE":
            raise _not_found(subscription_id, replay_id)
        if status == b"OVER":
            raise ConflictError(f"replay {replay_id} has ended already")

    async def next(self, subscription_id: str) -> tuple[Replay, ReplayProgress] | None:
        """The replay that is to go on, None if none is."""
        replay_id = await self._redis.lindex(keys.replay_queue(subscription_id), 0)
        if replay_id is None:
            return None
        (found,) = await self._get_many(subscription_id, [cast("bytes", replay_id).decode()])
        return found

    async def feed(
        self, lease: Lease, replay: Replay, progress: ReplayProgress, part: Part
    ) -> Literal["OK", "FULL", "STALE"]:
        """Adds the part that follows `progress` to what is being replayed. FULL if too much is
        already, STALE if the replay has moved on or was cancelled; then nothing was written.
        Raises LeaseLostError."""
        subscription_id = replay.subscription_id
        arguments: list[str | int | bytes] = [
            lease.token,
            replay.id,
            progress.position,
            part.position,
            part.scanned,
            "1" if part.last else "0",
            part.most,
            part.note,
            part.error,
            part.left_out,
            len(part.increments),
            *flatten(Counter(part.increments)),
        ]
        suffixes = iter(event_suffixes(sum(isinstance(one, Backfilled) for one in part.entries)))
        for one in part.entries:
            arguments += [one.order_key, one.rendering]
            if isinstance(one, Replayed):
                arguments.append(one.position)
            else:
                arguments += ["", one.type, one.integration_id, one.course_id, next(suffixes)]
                arguments += [one.sequence, one.facts, one.body]
        status = await self._feed(
            keys=[
                lease.key,
                keys.replay_queue(subscription_id),
                keys.replay(subscription_id, replay.id),
                keys.replayed(subscription_id),
                keys.TOTALS,
                keys.backfilled(subscription_id),
                await self._counters.key(),
            ],
            args=arguments,
        )
        if status == b"LEASE":
            raise LeaseLostError
        return cast('Literal["OK", "FULL", "STALE"]', status.decode())

    async def unfinished(self, subscription_id: str, which: Which) -> str | None:
        """The id of a replay of that kind that has not ended, None if there is none."""
        ids = await all_ids(self._redis, keys.replays(subscription_id))
        for found in await self._get_many(subscription_id, ids):
            if found is not None and found[0].which == which and found[1].finished_at is None:
                return found[0].id
        return None

    async def ahead(self, subscription_id: str) -> tuple[int, int]:
        """How much is being replayed, and the bytes that events take which backfills made."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.xlen(keys.replayed(subscription_id))
            pipeline.memory_usage(keys.backfilled(subscription_id))
            entries, size = await pipeline.execute()
        return int(entries), int(size or 0)

    async def being_replayed(self, subscription_id: str) -> set[str]:
        """Positions in the log of everything that is being replayed."""
        key = keys.replayed(subscription_id)
        found = cast("list[StreamEntry]", await self._redis.xrange(key, "-", "+"))
        return {fields[b"p"].decode() for _, fields in found}

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


def _read(stored: dict[bytes, bytes]) -> tuple[Replay, ReplayProgress]:
    record = stored.pop(b"record")
    facts = {name.decode(): value.decode() for name, value in stored.items()}
    return _decode(record), msgspec.convert(facts, ReplayProgress, strict=False)


def _not_found(subscription_id: str, replay_id: str) -> NotFoundError:
    return NotFoundError(f"there is no replay {replay_id} of subscription {subscription_id}")
