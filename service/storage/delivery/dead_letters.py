"""Reads the list of dead deliveries of an outbox, in the order of their events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from service.domain.events.identifiers import sort_key
from service.storage.events.event_log import START
from service.storage.redis import keys
from service.storage.redis.hashes import read_fields
from service.storage.redis.sorted_positions import sorted_positions

if TYPE_CHECKING:
    from redis.asyncio import Redis


class DeadLetter(msgspec.Struct, frozen=True):
    """Why a delivery is dead, and since when: epoch ms. `rendering` is the letter in its outbox
    entry."""

    position: str
    died_at: int
    attempts: int
    rendering: str
    order_key: str
    reason: str

    @classmethod
    def of(cls, position: str, facts: bytes) -> DeadLetter:
        """The stored facts of the delivery at a position."""
        died_at, attempts, rendering, order_key, reason = facts.decode().split(" ", 4)
        return cls(position, int(died_at), int(attempts), rendering, order_key, reason)


class DeadLetters:
    """Reads dead deliveries; only scripts write them."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def get_many(
        self, subscription_id: str, positions: Sequence[str]
    ) -> list[DeadLetter | None]:
        """Those at the given positions of the log, None where none is listed."""
        if not positions:
            return []
        found = await read_fields(
            self._redis, keys.outbox_dead_facts(subscription_id), [*map(sort_key, positions)]
        )
        return [
            None if facts is None else DeadLetter.of(position, facts)
            for position, facts in zip(positions, found, strict=True)
        ]

    async def page(self, subscription_id: str, after: str | None, count: int) -> list[DeadLetter]:
        """At most `count` after the position `after` (None: from the oldest event)."""
        listed = keys.outbox_dead(subscription_id)
        chosen = await sorted_positions(self._redis, listed, after or START, None, count=count + 1)
        found = await self.get_many(subscription_id, [one for one in chosen if one != after])
        return [one for one in found if one is not None][:count]
