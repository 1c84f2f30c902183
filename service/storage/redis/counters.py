"""Counters that the committing scripts increment, and the gauges that they maintain."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from service.storage.redis import keys
from service.storage.redis.keys import Key
from service.storage.redis.recent_reads import RecentReads

if TYPE_CHECKING:
    from redis.asyncio import Redis


@lru_cache(maxsize=1024)
def field(name: str, **labels: str) -> str:
    """The hash field of a counter: its name and its label values, in the order given."""
    return "|".join((name, *labels.values()))


class Counters:
    """The location of the counters of the Redis server's current run."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._recent = RecentReads(self._read_key)

    async def key(self) -> Key:
        """The counters' key. It follows a restart of the server within a second, so that the
        counters start again from zero there, as Prometheus expects."""
        return await self._recent.get("server")

    async def read(self) -> tuple[dict[str, int], dict[str, int]]:
        """All counters of this run, and all totals."""
        key = await self.key()
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.hgetall(key)
            pipeline.hgetall(keys.TOTALS)
            counters, totals = await pipeline.execute()
        return _decoded(counters), _decoded(totals)

    async def _read_key(self, section: str) -> Key:
        server = await self._redis.info(section)
        return keys.counters(str(server.get("run_id", "unknown")))


def _decoded(stored: dict[bytes, bytes]) -> dict[str, int]:
    return {name.decode(): int(value) for name, value in stored.items()}
