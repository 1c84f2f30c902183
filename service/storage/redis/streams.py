"""Reads Redis streams with the types they have when replies are left undecoded."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from service.domain.events.identifiers import position_order

if TYPE_CHECKING:
    from redis.asyncio import Redis

StreamEntry = tuple[bytes, dict[bytes, bytes]]


async def read_stream(redis: Redis, key: str, after: str | None, count: int) -> list[StreamEntry]:
    """At most `count` entries after the id `after` (None: from the start), oldest first."""
    start = f"({after}" if after else "-"
    return cast("list[StreamEntry]", await redis.xrange(key, start, "+", count=count))


async def await_stream(
    redis: Redis, key: str, after: str, count: int, block_ms: int
) -> list[StreamEntry]:
    """Like `read_stream`, waiting at most `block_ms` for the first entry. It occupies a connection
    meanwhile."""
    found = cast(
        "list[tuple[bytes, list[StreamEntry]]]",
        await redis.xread({key: after}, count=count, block=block_ms),
    )
    return found[0][1] if found else []


async def read_stream_back(
    redis: Redis, key: str, before: str | None, count: int, after: str | None = None
) -> list[StreamEntry]:
    """At most `count` entries before the id `before` (None: from the end), newest first, and only
    those after `after`."""
    if before is not None and position_order(before) == (0, 0):
        return []  # the server refuses a range below the lowest id
    start = f"({before}" if before else "+"
    # If there is nothing before it, the server would read the whole stream to find out.
    if before and not await redis.xrange(key, "-", start, count=1):
        return []
    end = f"({after}" if after else "-"
    return cast("list[StreamEntry]", await redis.xrevrange(key, start, end, count=count))
