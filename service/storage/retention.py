"""Trims what has outlived its retention."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from service.storage import keys
from service.storage.scripts import load

if TYPE_CHECKING:
    from redis.asyncio import Redis


class Retention:
    """Forgets old events, attempt records and dead deliveries."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._trim_dead = load(redis, "trim_dead")

    async def trim(
        self, *, events_before: int, attempts_before: int, dead_before: int
    ) -> dict[str, int]:
        """Forgets what is older than the given epoch ms; returns how much of each that was."""
        # `~` lets the server trim by whole nodes, which costs next to nothing.
        events = await self._redis.xtrim(keys.EVENTS, minid=events_before, approximate=True)
        attempts = dead = 0
        async for subscription_id, _ in self._redis.zscan_iter(keys.SUBSCRIPTIONS):
            name = cast("bytes", subscription_id).decode()
            attempts += await self._redis.xtrim(
                keys.attempts(name), minid=attempts_before, approximate=True
            )
            dead += int(
                await self._trim_dead(keys=[keys.lane_dead(name), keys.TOTALS], args=[dead_before])
            )
        return {"events": events, "attempts": attempts, "dead": dead}
