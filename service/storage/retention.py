"""Trims what has outlived its retention."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from service.storage import keys
from service.storage.lanes import EXPIRED
from service.storage.scripts import load
from service.storage.streams import read_stream

if TYPE_CHECKING:
    from redis.asyncio import Redis

_TRIMMED_AT_ONCE = 1_000  # entries of a lane given up in one script


class Retention:
    """Forgets old events, attempt records and dead deliveries."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._trim_dead = load(redis, "trim_dead")
        self._trim_lane = load(redis, "trim_lane")

    async def trim(
        self,
        *,
        events_before: int,
        events_max_bytes: int,
        attempts_before: int,
        dead_before: int,
    ) -> dict[str, int]:
        """Forgets what is older than the given epoch ms; returns how much of each that was.

        The log also loses its oldest events while it takes more than `events_max_bytes` of
        memory. Entries of lanes whose events are gone become dead deliveries.
        """
        # `~` lets the server trim by whole nodes, which costs next to nothing.
        events = await self._redis.xtrim(keys.EVENTS, minid=events_before, approximate=True)
        events += await self._shrink_log(events_max_bytes)
        oldest = await read_stream(self._redis, keys.EVENTS, None, 1)
        log_begins = oldest[0][0].decode() if oldest else str(events_before)
        attempts = dead = expired = 0
        async for subscription_id, _ in self._redis.zscan_iter(keys.SUBSCRIPTIONS):
            name = cast("bytes", subscription_id).decode()
            expired += await self._expire(name, log_begins)
            attempts += await self._redis.xtrim(
                keys.attempts(name), minid=attempts_before, approximate=True
            )
            dead += int(
                await self._trim_dead(keys=[keys.lane_dead(name), keys.TOTALS], args=[dead_before])
            )
        return {"events": events, "expired": expired, "attempts": attempts, "dead": dead}

    async def _shrink_log(self, max_bytes: int) -> int:
        """Trims the log to its size in memory, which the server estimates from samples."""
        used = int(await self._redis.memory_usage(keys.EVENTS) or 0)
        if used <= max_bytes:
            return 0
        kept = int(await self._redis.xlen(keys.EVENTS)) * max_bytes // used
        return int(await self._redis.xtrim(keys.EVENTS, maxlen=kept, approximate=True))

    async def _expire(self, subscription_id: str, log_begins: str) -> int:
        """Gives up what a lane holds of events that the log no longer does."""
        expired = 0
        while True:
            gone = await self._trim_lane(
                keys=[
                    keys.lane(subscription_id),
                    keys.lane_retries(subscription_id),
                    keys.lane_failing(subscription_id),
                    keys.lane_dead(subscription_id),
                    keys.TOTALS,
                    keys.lane_state(subscription_id),
                ],
                args=[log_begins, _TRIMMED_AT_ONCE, EXPIRED],
            )
            expired += int(gone)
            if gone < _TRIMMED_AT_ONCE:
                return expired
