"""How full the server's memory is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redis.asyncio import Redis

_LIFETIME = 1.0  # seconds a figure is believed without asking again


class Memory:
    """The server's memory against its limit."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._share = 0.0
        self._known_until = 0.0

    async def used_share(self) -> float:
        """The part of `maxmemory` in use, 0 where there is no limit; at most a second old."""
        now = time.monotonic()
        if now >= self._known_until:
            info = await self._redis.info("memory")
            limit = int(info.get("maxmemory", 0))
            self._share = int(info.get("used_memory", 0)) / limit if limit else 0.0
            self._known_until = now + _LIFETIME
        return self._share
