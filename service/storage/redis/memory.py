"""The memory usage of the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.storage.redis.recent_reads import RecentReads

if TYPE_CHECKING:
    from redis.asyncio import Redis


MEMORY_SHARE = 0.8  # of the limit: above it polls wait, so that deliveries can continue
MEMORY_WAIT_MS = 15_000


class Memory:
    """The server's memory against its limit."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self.recent = RecentReads(self._read_share)

    async def used_share(self) -> float:
        """The used part of `maxmemory`, 0 without a limit; at most a second old."""
        return await self.recent.get("memory")

    async def _read_share(self, section: str) -> float:
        info = await self._redis.info(section)
        limit = int(info.get("maxmemory", 0))
        return int(info.get("used_memory", 0)) / limit if limit else 0.0
