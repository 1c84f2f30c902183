"""Reads Redis hashes with the types they have when replies are left undecoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from redis.asyncio import Redis


async def read_field(redis: Redis, key: str, name: str) -> bytes | None:
    """One field of a hash, None if it is not set."""
    return cast("bytes | None", await redis.hget(key, name))


async def read_fields(redis: Redis, key: str, names: Sequence[str]) -> list[bytes | None]:
    """Some fields of a hash at one moment, None where one is not set."""
    return cast("list[bytes | None]", await redis.hmget(key, list(names)))
