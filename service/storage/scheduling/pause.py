"""Stops and starts polling and delivery for the whole system."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Literal, cast

from service.storage.redis import keys
from service.storage.scheduling.leases import Kind

if TYPE_CHECKING:
    from redis.asyncio import Redis

Activity = Literal["polling", "delivery"]
ACTIVITIES: Final[dict[Kind, Activity]] = {"polls": "polling", "outboxes": "delivery"}

_LIFETIME = 1.0  # seconds an answer is believed without asking again


class Control:
    """What is paused, and since when. Scripts that claim work read the same hash."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._paused: dict[Activity, int] = {}
        self._known_until = 0.0

    async def pause(self, *activities: Activity) -> None:
        """Nothing of these is claimed from now on, and what is under way hands back at its next
        step. One that is paused already stays paused since it was."""
        seconds, microseconds = await self._redis.time()
        now = int(seconds) * 1000 + int(microseconds) // 1000
        async with self._redis.pipeline(transaction=True) as pipeline:
            for activity in activities:
                pipeline.hsetnx(keys.CONTROL, activity, now)
            await pipeline.execute()
        self._known_until = 0.0

    async def resume(self, *activities: Activity) -> None:
        """These go on with whatever is due by now."""
        await self._redis.hdel(keys.CONTROL, *activities)
        self._known_until = 0.0

    async def paused(self) -> dict[Activity, int]:
        """What is paused, each since when, in epoch ms of the clock of Redis."""
        found = cast("dict[bytes, bytes]", await self._redis.hgetall(keys.CONTROL))
        return {
            activity: int(found[activity.encode()])
            for activity in ACTIVITIES.values()
            if activity.encode() in found
        }

    async def is_paused(self, activity: Activity) -> bool:
        """Whether it is paused; the answer is at most a second old."""
        now = time.monotonic()
        if now >= self._known_until:
            self._paused = await self.paused()
            self._known_until = now + _LIFETIME
        return activity in self._paused
