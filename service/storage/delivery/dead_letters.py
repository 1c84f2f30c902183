"""Reads the list of dead deliveries of an outbox, in the order of their events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import msgspec

from service.domain.events.identifiers import position_ms, position_order
from service.storage.redis import keys
from service.storage.redis.hashes import read_fields

if TYPE_CHECKING:
    from redis.asyncio import Redis


class DeadLetter(msgspec.Struct, frozen=True):
    """Why a delivery was given up, and when: epoch ms. `rendering` is the letter that its outbox
    entry had."""

    position: str
    died_at: int
    attempts: int
    rendering: str
    order_key: str
    reason: str


class DeadLetters:
    """Reads dead deliveries; only scripts list them."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def get_many(
        self, subscription_id: str, positions: Sequence[str]
    ) -> list[DeadLetter | None]:
        """Those at the given positions of the log, None where none is listed."""
        if not positions:
            return []
        facts = await read_fields(self._redis, keys.outbox_dead_facts(subscription_id), positions)
        return [
            None if one is None else _read(position, one)
            for position, one in zip(positions, facts, strict=True)
        ]

    async def page(self, subscription_id: str, after: str | None, count: int) -> list[DeadLetter]:
        """At most `count` behind the position `after` (None: from the oldest event)."""
        key = keys.outbox_dead(subscription_id)
        least: int | str = "-inf" if after is None else position_ms(after)
        found: list[str] = []
        offset = 0
        while len(found) <= count:
            page = await self._range(key, least, "+inf", offset, count + 1)
            offset += len(page)
            found += [
                position
                for position in page
                if after is None or position_order(position) > position_order(after)
            ]
            if len(page) <= count:
                break
        else:
            # Those of one millisecond stand in the order of their bytes: all of them are needed.
            last = position_ms(found[-1])
            others = await self._range(key, last, last, 0, -1)
            found = [one for one in found if position_ms(one) != last] + [
                one
                for one in others
                if after is None or position_order(one) > position_order(after)
            ]
        chosen = sorted(found, key=position_order)[:count]
        facts = await self.get_many(subscription_id, chosen)
        return [one for one in facts if one is not None]

    async def _range(
        self, key: str, least: int | str, most: int | str, offset: int, count: int
    ) -> list[str]:
        found = cast(
            "list[bytes]",
            await self._redis.zrange(key, least, most, byscore=True, offset=offset, num=count),
        )
        return [member.decode() for member in found]


def _read(position: str, facts: bytes) -> DeadLetter:
    died_at, attempts, rendering, order_key, reason = facts.decode().split(" ", 4)
    return DeadLetter(position, int(died_at), int(attempts), rendering, order_key, reason)
