"""Pages through the indexes of registrations: ids in the order of their creation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final, cast

import msgspec

if TYPE_CHECKING:
    from redis.asyncio import Redis

_PAGE: Final = 200


class IndexPosition(msgspec.Struct, frozen=True):
    """A position in an index, which additions and removals do not invalidate."""

    created_at: int
    id: str


async def page_of_ids(
    redis: Redis, key: str, limit: int, after: IndexPosition | None
) -> tuple[list[str], IndexPosition | None]:
    """At most `limit` ids after `after`, and the position to continue from (None at the end)."""
    found: list[IndexPosition] = []
    offset, most = 0, limit + 2  # among them `after` itself, and one that shows whether more follow
    while len(found) <= limit:
        page = await _read(redis, key, after.created_at if after else 0, offset, most)
        # Ids of the same millisecond are in the order of their bytes.
        found += [
            position
            for position in page
            if after is None or (position.created_at, position.id) > (after.created_at, after.id)
        ]
        if len(page) < most:
            break
        offset += len(page)
    ids = [position.id for position in found[:limit]]
    return ids, found[limit - 1] if len(found) > limit else None


async def all_ids(redis: Redis, key: str) -> list[str]:
    """Every id, in the order of creation."""
    members = cast("list[bytes]", await redis.zrange(key, 0, -1))
    return [member.decode() for member in members]


async def newest_ids(redis: Redis, key: str, most: int | None) -> AsyncIterator[list[str]]:
    """Pages of ids, the newest first: `most` ids, or all."""
    start = 0
    while most is None or start < most:
        size = _PAGE if most is None else min(_PAGE, most - start)
        page = cast("list[bytes]", await redis.zrange(key, start, start + size - 1, desc=True))
        yield [member.decode() for member in page]
        if len(page) < size:
            return
        start += size


async def _read(
    redis: Redis, key: str, from_ms: int, offset: int, count: int
) -> list[IndexPosition]:
    found = cast(
        "list[tuple[bytes, float]]",
        await redis.zrange(
            key, from_ms, "+inf", byscore=True, offset=offset, num=count, withscores=True
        ),
    )
    return [IndexPosition(int(score), member.decode()) for member, score in found]
