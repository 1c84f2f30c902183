"""Reads Redis streams with the types they have when replies are left undecoded."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from redis.asyncio import Redis

StreamEntry = tuple[bytes, dict[bytes, bytes]]


async def read_stream(redis: Redis, key: str, after: str | None, count: int) -> list[StreamEntry]:
    """At most `count` entries behind the id `after` (None: from the start), oldest first."""
    start = f"({after}" if after else "-"
    return cast("list[StreamEntry]", await redis.xrange(key, start, "+", count=count))
