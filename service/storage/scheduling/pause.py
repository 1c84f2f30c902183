"""Stops and starts polling and delivery of the whole system."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, cast

from service.storage.redis import keys
from service.storage.redis.keys import Key
from service.storage.redis.recent_reads import RecentReads
from service.storage.redis.scripts import Script, run
from service.storage.scheduling.leases import Kind

if TYPE_CHECKING:
    from redis.asyncio import Redis

Activity = Literal["polling", "delivery"]
ACTIVITIES: Final[dict[Kind, Activity]] = {"polls": "polling", "outboxes": "delivery"}


class Pause(Script[None]):
    """Pauses activities. Begins with a removal, so that it runs even at Redis's memory limit."""

    control: Key = keys.CONTROL
    activities: tuple[Activity, ...]


class Control:
    """The paused activities, and since when. Scripts that claim work read the same hash."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._recent = RecentReads(self._read)

    async def pause(self, *activities: Activity) -> None:
        """Pauses activities: nothing is claimed, and running work returns at its next step. An
        activity that is paused already keeps its time."""
        await run(self._redis, Pause(activities=activities))
        self._recent.forget(keys.CONTROL)

    async def resume(self, *activities: Activity) -> None:
        """Resumes activities with all work that is due by now."""
        await self._redis.hdel(keys.CONTROL, *activities)
        self._recent.forget(keys.CONTROL)

    async def paused(self) -> dict[Activity, int]:
        """The paused activities, each since when, in epoch ms of the clock of Redis."""
        return await self._read(keys.CONTROL)

    async def is_paused(self, activity: Activity) -> bool:
        """Whether it is paused; the answer is at most a second old."""
        return activity in await self._recent.get(keys.CONTROL)

    async def _read(self, key: str) -> dict[Activity, int]:
        found = cast("dict[bytes, bytes]", await self._redis.hgetall(key))
        return {
            activity: int(found[activity.encode()])
            for activity in ACTIVITIES.values()
            if activity.encode() in found
        }
