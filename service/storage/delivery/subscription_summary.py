"""A subscription in responses: its registration, and the size of its outbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from service.domain.delivery.subscription import Subscription
from service.domain.errors import NotFoundError
from service.domain.events.identifiers import position_ms
from service.storage.delivery.outboxes import OutboxDepth
from service.storage.redis import keys
from service.storage.redis.keys import Key
from service.storage.redis.scripts import Script, run

if TYPE_CHECKING:
    from redis.asyncio import Redis

_decode = msgspec.json.Decoder(Subscription).decode


class SubscriptionAsFound(msgspec.Struct, frozen=True):
    """A record and the size of its outbox; `oldest` is the position of the oldest pending event,
    `replaying` the number of unsent replayed ones."""

    record: bytes
    pending: int
    dead: int
    oldest: str | None
    parked: bool
    replaying: int


class SummarizeSubscription(Script[SubscriptionAsFound | None]):
    """The summary of a subscription, None if it does not exist."""

    subscription: Key
    outbox: Key
    dead: Key
    outbox_state: Key
    replayed: Key
    replay_queue: Key


class SubscriptionSummaries:
    """Reads in one command what clients that watch a backlog request repeatedly: separate reads of
    the record and of the outbox's size take twice the processor time."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def get(self, subscription_id: str) -> tuple[Subscription, OutboxDepth]:
        """One subscription. Raises NotFoundError."""
        summarize = SummarizeSubscription(
            subscription=keys.subscription(subscription_id),
            outbox=keys.outbox(subscription_id),
            dead=keys.outbox_dead(subscription_id),
            outbox_state=keys.outbox_state(subscription_id),
            replayed=keys.replayed(subscription_id),
            replay_queue=keys.replay_queue(subscription_id),
        )
        found = await run(self._redis, summarize)
        if found is None:
            raise NotFoundError(f"there is no subscription {subscription_id}")
        depth = OutboxDepth(
            pending=found.pending,
            dead=found.dead,
            oldest_pending_at=None if found.oldest is None else position_ms(found.oldest),
            parked=found.parked,
            replaying=found.replaying > 0,
        )
        return _decode(found.record), depth
