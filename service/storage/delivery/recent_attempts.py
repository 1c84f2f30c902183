"""Reads the latest attempts of a subscription for statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from service.domain.delivery.attempt_statistics import EndedAttempt
from service.storage.redis import keys
from service.storage.redis.streams import read_stream_back

if TYPE_CHECKING:
    from redis.asyncio import Redis

MOST: Final = 1_000

_decode = msgspec.json.Decoder(EndedAttempt).decode


async def read_recent_attempts(
    redis: Redis, subscription_id: str, count: int
) -> list[EndedAttempt]:
    """The latest `count` attempts, in the order of their ends."""
    found = await read_stream_back(redis, keys.attempts(subscription_id), None, count)
    return [_decode(fields[b"d"]) for _, fields in reversed(found)]
