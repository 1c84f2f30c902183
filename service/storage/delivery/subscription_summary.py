"""Subscriptions as they are shown: what is registered, and how much their outboxes hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from service.domain.delivery.subscription import Subscription
from service.domain.errors import NotFoundError
from service.domain.events.identifiers import position_ms
from service.storage.delivery.outboxes import OutboxDepth
from service.storage.redis import keys
from service.storage.redis.coalesce import Together
from service.storage.redis.keys import Key
from service.storage.redis.scripts import Script, run

if TYPE_CHECKING:
    from redis.asyncio import Redis

Shown = tuple[Subscription, OutboxDepth]

_decode = msgspec.json.Decoder(Subscription).decode


class SubscriptionKeys(msgspec.Struct, frozen=True):
    """What is read of a subscription to show it."""

    subscription: Key
    outbox: Key
    dead: Key
    outbox_state: Key
    replayed: Key
    replay_queue: Key


class SubscriptionAsFound(msgspec.Struct, frozen=True):
    """A record and how much its outbox holds; `oldest` is the position of what is pending longest,
    `replaying` what replays have left."""

    record: bytes
    pending: int
    dead: int
    oldest: str | None
    parked: bool
    replaying: int


class ShowSubscriptions(Script[list[SubscriptionAsFound | None]]):
    """What is shown of some subscriptions, None where there is none."""

    subscriptions: Sequence[SubscriptionKeys]


class ShownSubscriptions:
    """Reads in one command what is asked for again and again by whoever watches a backlog."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._together: Together[str, Shown | None] = Together(self._read)

    async def get(self, subscription_id: str) -> Shown:
        """One subscription. Raises NotFoundError."""
        shown = await self._together.get(subscription_id)
        if shown is None:
            raise NotFoundError(f"there is no subscription {subscription_id}")
        return shown

    async def _read(self, subscription_ids: Sequence[str]) -> list[Shown | None]:
        wanted = [
            SubscriptionKeys(
                keys.subscription(one),
                keys.outbox(one),
                keys.outbox_dead(one),
                keys.outbox_state(one),
                keys.replayed(one),
                keys.replay_queue(one),
            )
            for one in subscription_ids
        ]
        found = await run(self._redis, ShowSubscriptions(subscriptions=wanted))
        return [None if one is None else _shown(one) for one in found]


def _shown(found: SubscriptionAsFound) -> Shown:
    depth = OutboxDepth(
        pending=found.pending,
        dead=found.dead,
        oldest_pending_at=None if found.oldest is None else position_ms(found.oldest),
        parked=found.parked,
        replaying=found.replaying > 0,
    )
    return _decode(found.record), depth
