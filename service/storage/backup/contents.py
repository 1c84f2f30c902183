"""Reads and writes all keys of Coursewire in parts that every version of Redis and Valkey
accepts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from service.storage.redis import keys

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.client import Pipeline

_AT_ONCE: Final = 1_000  # keys, or items of a key
_READ_AT_ONCE: Final = 100  # keys, with as many items of each
_WRITTEN_BYTES: Final = 4_000_000  # sent together
_MOMENTARY: Final = tuple(name.encode() for name in keys.MOMENTARY)


class Part(msgspec.Struct, frozen=True, array_like=True):
    """Some items of a key: field and value of a hash, member and score of a sorted set, id and
    fields of a stream's entry (the id alone for the marker of a deleted entry), or just a value.
    `expires_at` is epoch ms, 0 for never."""

    key: bytes
    kind: str
    expires_at: int
    items: list[list[bytes]]


async def is_there(redis: Redis) -> bool:
    """Whether the database contains keys of Coursewire."""
    async for _ in redis.scan_iter(keys.OURS, count=_AT_ONCE):
        return True
    return False


async def remove(redis: Redis) -> None:
    """Delete all keys of Coursewire. RQ's jobs stay, because their claims are no longer valid."""
    cursor = -1
    while cursor:
        cursor, found = await redis.scan(max(cursor, 0), keys.OURS, count=_AT_ONCE)
        if found:
            await redis.unlink(*found)


# Redis is `Any` below, because redis-py's types include text replies.


async def read(redis: Any) -> AsyncGenerator[Part, None]:
    """Every permanent key of a server without writers."""
    cursor = -1
    while cursor:
        cursor, found = await redis.scan(max(cursor, 0), keys.OURS, count=_READ_AT_ONCE)
        lasting = [key for key in found if not key.startswith(_MOMENTARY)]
        # Commands of coroutines that run together share round trips.
        for part, following in await asyncio.gather(*(_first(redis, key) for key in lasting)):
            yield part
            place = following
            while place is not None:
                items, place = await _items(redis, part.kind, part.key, place)
                yield msgspec.structs.replace(part, items=items)


async def _first(redis: Any, key: bytes) -> tuple[Part, Any]:
    kind, expires_at = await asyncio.gather(redis.type(key), redis.pexpiretime(key))
    items, place = await _items(redis, kind.decode(), key, 0)
    return Part(key, kind.decode(), max(0, expires_at), items), place


async def _items(redis: Any, kind: str, key: bytes, place: Any) -> tuple[list[list[bytes]], Any]:
    """Items from a cursor on, 0 at first, and the next cursor, None at the end."""
    match kind:
        case "string":
            value = await redis.get(key)
            return [[value or b""]], None
        case "hash":
            cursor, fields = await redis.hscan(key, place, count=_AT_ONCE)
            return [[name, value] for name, value in fields.items()], cursor or None
        case "zset":
            cursor, scored = await redis.zscan(key, place, count=_AT_ONCE)
            return [[member, repr(score).encode()] for member, score in scored], cursor or None
        case "set":
            cursor, members = await redis.sscan(key, place, count=_AT_ONCE)
            return [[member] for member in members], cursor or None
        case "list":
            values = await redis.lrange(key, place, place + _AT_ONCE - 1)
            return [[one] for one in values], place + _AT_ONCE if len(values) == _AT_ONCE else None
        case "stream":
            return await _entries(redis, key, place)
        case _:
            raise TypeError(f"{key!r} is a {kind}")


async def _entries(redis: Any, key: bytes, place: Any) -> tuple[list[list[bytes]], Any]:
    found = await redis.xrange(key, f"({place}" if place else "-", count=_AT_ONCE)
    items = [
        [entry, *(text for pair in fields.items() for text in pair)] for entry, fields in found
    ]
    end = items[-1][0] if items else str(place).encode()
    if len(items) == _AT_ONCE:
        return items, end.decode()
    last = (await redis.xinfo_stream(key))["last-generated-id"]
    return items if last in (end, b"0-0") else [*items, [last]], None


async def write(redis: Redis, parts: Iterable[Part], now_ms: int) -> int:
    """Write parts whose keys do not exist, without expired ones. Returns the number of keys after
    that."""
    written = set[bytes]()
    async with redis.pipeline(transaction=False) as pipeline:
        size = 0
        for part in parts:
            if 0 < part.expires_at <= now_ms:
                continue
            written.add(part.key)
            _add(pipeline, part)
            if part.expires_at:
                pipeline.pexpire(part.key, part.expires_at - now_ms)
            size += sum(len(text) for item in part.items for text in item)
            if size > _WRITTEN_BYTES:
                await pipeline.execute()
                size = 0
        await pipeline.execute()
    return len(written)


def _add(pipeline: Pipeline, part: Part) -> None:
    flat = [text for item in part.items for text in item]
    if not flat:
        return
    match part.kind:
        case "string":
            pipeline.set(part.key, flat[0])
        case "hash":
            pipeline.execute_command("HSET", part.key, *flat)
        case "zset":
            reordered = [text for member, score in part.items for text in (score, member)]
            pipeline.execute_command("ZADD", part.key, *reordered)
        case "set":
            pipeline.execute_command("SADD", part.key, *flat)
        case "list":
            pipeline.execute_command("RPUSH", part.key, *flat)
        case "stream":
            for entry, *fields in part.items:
                pipeline.execute_command("XADD", part.key, entry, *(fields or (b"", b"")))
                if not fields:
                    pipeline.execute_command("XDEL", part.key, entry)
        case _:
            raise ValueError(part.kind)
