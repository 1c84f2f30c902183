"""Reads sorted sets whose members begin with the sort keys of positions in the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from service.domain.events.identifiers import (
    SORT_KEY_LENGTH,
    position_of,
    sort_key,
    sort_key_number,
)

if TYPE_CHECKING:
    from redis.asyncio import Redis


async def sorted_positions(
    redis: Redis,
    key: str,
    first: str,
    last: str | None,
    *,
    prefix: str = "",
    count: int | None = None,
) -> list[str]:
    """The positions from `first` to `last` (None: the last one), the lowest first, at most `count`
    (None: all). `prefix` precedes the sort keys."""
    start = f"[{prefix}{sort_key(first)}"
    end = f"({prefix}{'' if last is None else sort_key(last)}\x7f"
    offset = None if count is None else 0
    found = cast(
        "list[bytes]", await redis.zrange(key, start, end, bylex=True, offset=offset, num=count)
    )
    at = slice(len(prefix), len(prefix) + SORT_KEY_LENGTH)
    return [position_of(sort_key_number(member[at].decode())) for member in found]
