"""Lanes: the ordered queue of events that a subscription has not received yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from service.domain.errors import LeaseLostError
from service.domain.identifiers import position_ms
from service.domain.lane import Entry
from service.domain.subscriptions import Rendering
from service.storage import keys
from service.storage.counters import Counters, flatten
from service.storage.leases import Lease
from service.storage.scripts import load
from service.storage.streams import read_stream

if TYPE_CHECKING:
    from redis.asyncio import Redis

RENDERINGS: dict[Rendering, str] = {  # one letter each, for every entry of a lane carries it
    Rendering.FULL: "f",
    Rendering.THIN: "t",
    Rendering.FULL_CLOUDEVENT: "c",
    Rendering.THIN_CLOUDEVENT: "d",
}
_BY_LETTER = {letter.encode(): rendering for rendering, letter in RENDERINGS.items()}
EXPIRED = "the event is older than the retention"
NOT_GRANTED = "the API key that the subscription belongs to is gone, or may not see the event"
MAX_ATTEMPT_RECORDS = 10_000  # kept per subscription

Due = Literal["now", "later", "never"]
Result = Literal["S", "R", "D"]


class LaneDepth(msgspec.Struct, frozen=True):
    """How much a lane holds; `oldest_pending_at` is epoch ms."""

    pending: int
    dead: int
    oldest_pending_at: int | None


class Failing(msgspec.Struct, frozen=True):
    """An entry that has failed and waits: `attempts` so far, `due_at` epoch ms of Redis."""

    entry: Entry
    attempts: int
    due_at: int


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that has ended, as the lane records it.

    `result` is S (delivered), R (to be retried in `wait_ms`) or D (dead for `reason`);
    `record` is the attempt's JSON, empty if no attempt was made.
    """

    entry: Entry
    attempts: int
    result: Result
    wait_ms: int = 0
    reason: str = ""
    record: bytes = b""


class Lanes:
    """Reads lanes and records what became of their entries."""

    def __init__(self, redis: Redis, counters: Counters) -> None:
        self._redis = redis
        self._counters = counters
        self._record = load(redis, "record_attempts")
        self._release = load(redis, "release_lane")

    async def read(self, subscription_id: str, after: str | None, count: int) -> list[Entry]:
        """At most `count` entries behind the position `after`, oldest first."""
        found = await read_stream(self._redis, keys.lane(subscription_id), after, count)
        return [_entry(entry_id, fields) for entry_id, fields in found]

    async def now_ms(self) -> int:
        """The present by the clock of Redis, which all due times are told by, in epoch ms."""
        seconds, microseconds = await self._redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def failing(self, subscription_id: str) -> list[Failing]:
        """The entries that have failed and wait for their next attempt."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.hgetall(keys.lane_failing(subscription_id))
            pipeline.zrange(keys.lane_retries(subscription_id), 0, -1, withscores=True)
            failing, retries = await pipeline.execute()
        due_at = {position: int(score) for position, score in retries}
        waiting = []
        for position, state in failing.items():
            attempts, letter, order_key = state.split(b" ", 2)
            entry = Entry(position.decode(), order_key.decode(), _BY_LETTER[letter])
            waiting.append(Failing(entry, int(attempts), due_at.get(position, 0)))
        return waiting

    async def record(
        self, lease: Lease, recorded: Sequence[Recorded], increments: Counter[str]
    ) -> None:
        """Records attempts under a lease. Raises LeaseLostError if the lease is not ours."""
        subscription_id = lease.owned_id
        arguments: list[str | int | bytes] = [
            lease.token,
            lease.duration_ms,
            MAX_ATTEMPT_RECORDS,
            len(increments),
            *flatten(increments),
        ]
        for one in recorded:
            entry = one.entry
            detail = one.wait_ms if one.result == "R" else one.reason
            arguments += [
                entry.position,
                one.result,
                one.attempts,
                f"{RENDERINGS[entry.rendering]} {entry.order_key}",
                detail,
                one.record,
            ]
        (status,) = await self._record(
            keys=[
                lease.key,
                keys.lane(subscription_id),
                keys.lane_retries(subscription_id),
                keys.lane_failing(subscription_id),
                keys.lane_dead(subscription_id),
                keys.attempts(subscription_id),
                keys.TOTALS,
                await self._counters.key(),
            ],
            args=arguments,
        )
        if status != b"OK":
            raise LeaseLostError

    async def release(self, lease: Lease, last_looked_at: str | None, due: Due) -> bool:
        """Gives a lane back to the schedule; False if the lease was no longer ours.

        `last_looked_at` is a position, None before the first, or "+" if only retries can make
        room for more.
        """
        subscription_id = lease.owned_id
        return bool(
            await self._release(
                keys=[
                    lease.key,
                    keys.lane(subscription_id),
                    keys.lane_retries(subscription_id),
                    keys.due("lanes"),
                    keys.claimed("lanes"),
                ],
                args=[subscription_id, lease.token, last_looked_at or "-", due],
            )
        )

    async def depth_many(self, subscription_ids: Sequence[str]) -> list[LaneDepth]:
        """How much each lane holds."""
        if not subscription_ids:
            return []
        async with self._redis.pipeline(transaction=False) as pipeline:
            for subscription_id in subscription_ids:
                pipeline.xlen(keys.lane(subscription_id))
                pipeline.xlen(keys.lane_dead(subscription_id))
                pipeline.xrange(keys.lane(subscription_id), "-", "+", count=1)
            found = await pipeline.execute()
        depths = []
        for at in range(0, len(found), 3):
            pending, dead, oldest = found[at : at + 3]
            oldest_at = position_ms(oldest[0][0].decode()) if oldest else None
            depths.append(LaneDepth(pending, dead, oldest_at))
        return depths


def _entry(entry_id: bytes, fields: dict[bytes, bytes]) -> Entry:
    return Entry(entry_id.decode(), fields[b"k"].decode(), _BY_LETTER[fields[b"r"]])
