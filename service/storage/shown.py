"""Subscriptions as they are shown: what is registered, and how much their lanes hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from service.domain.errors import NotFoundError
from service.domain.identifiers import position_ms
from service.domain.subscriptions import Subscription
from service.storage import keys
from service.storage.lanes import LaneDepth
from service.storage.scripts import load
from service.storage.together import Together

if TYPE_CHECKING:
    from redis.asyncio import Redis

Shown = tuple[Subscription, LaneDepth]

_decode = msgspec.json.Decoder(Subscription).decode


class ShownSubscriptions:
    """Reads in one command what is asked for again and again by whoever watches a backlog."""

    def __init__(self, redis: Redis) -> None:
        self._script = load(redis, "show_subscriptions")
        self._together: Together[str, Shown | None] = Together(self._read)

    async def get(self, subscription_id: str) -> Shown:
        """One subscription. Raises NotFoundError."""
        shown = await self._together.get(subscription_id)
        if shown is None:
            raise NotFoundError(f"there is no subscription {subscription_id}")
        return shown

    async def _read(self, subscription_ids: Sequence[str]) -> list[Shown | None]:
        found = await self._script(
            keys=[
                key
                for one in subscription_ids
                for key in (
                    keys.subscription(one),
                    keys.lane(one),
                    keys.lane_dead(one),
                    keys.lane_state(one),
                    keys.replayed(one),
                    keys.replay_queue(one),
                )
            ]
        )
        return [None if one is None else _shown(*one) for one in found]


def _shown(
    record: bytes, pending: int, dead: int, oldest: bytes | None, parked: int, replaying: int
) -> Shown:
    oldest_at = None if oldest is None else position_ms(oldest.decode())
    return _decode(record), LaneDepth(pending, dead, oldest_at, bool(parked), replaying > 0)
