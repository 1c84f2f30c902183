"""Makes waiting retries due."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from service.domain.delivery.circuit_breaker import Breaker, without_waits
from service.domain.errors import NotFoundError
from service.domain.events.identifiers import event_position, sort_key
from service.ids import new_token
from service.storage.redis import keys
from service.storage.redis.hashes import read_field
from service.storage.redis.keys import Key, QueueKeys, ScheduleKeys
from service.storage.redis.optimistic_edit import edit
from service.storage.redis.scripts import Script, run
from service.storage.redis.scripts.statuses import RefusedError

if TYPE_CHECKING:
    from redis.asyncio import Redis

_decode = msgspec.json.Decoder(Breaker).decode


class RetriedEvent(msgspec.Struct, frozen=True):
    """The one event to retry."""

    position: str
    sort_key: str


class RetryOutbox(Script[int]):
    """Makes retries of an outbox due now, all or those that `one` event waits for, and ends its
    hold; returns their number. A running sender detects the random `resumed`. Refuses with STALE
    unless the breaker is `as_read`, and with GONE if the event is not pending."""

    outbox_state: Key
    live: QueueKeys
    replayed: QueueKeys
    replayed_order: Key
    replay_queue: Key
    lease: Key
    schedule: ScheduleKeys = keys.schedule("outboxes")
    id: str
    one: RetriedEvent | None
    as_read: bytes
    breaker: bytes | None
    resumed: str


class Retries:
    """Retries on request."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def retry(self, subscription_id: str, event_id: str | None = None) -> int:
        """Makes all retries due now, or that of one pending event's course, whose earliest event is
        sent first; returns the number of waiting retries. Raises NotFoundError if the event is not
        pending."""
        found = None if event_id is None else event_position(event_id)
        not_pending = NotFoundError(
            f"event {event_id} is not pending for subscription {subscription_id}; to send "
            "a delivered, skipped or dead event again, use POST /v1/events/{id}/redeliver"
        )
        if event_id is not None and found is None:
            raise not_pending
        one = None if found is None else RetriedEvent(found[0], sort_key(found[0]))

        async def attempt(_: bool) -> int:
            state = keys.outbox_state(subscription_id)
            as_read = await read_field(self._redis, state, "breaker") or b""
            retry = RetryOutbox(
                outbox_state=state,
                live=keys.live_queue(subscription_id),
                replayed=keys.replayed_queue(subscription_id),
                replayed_order=keys.replayed_order(subscription_id),
                replay_queue=keys.replay_queue(subscription_id),
                lease=keys.lease("outboxes", subscription_id),
                id=subscription_id,
                one=one,
                as_read=as_read,
                breaker=msgspec.json.encode(without_waits(_decode(as_read))) if as_read else None,
                resumed=new_token(),
            )
            return await run(self._redis, retry)

        try:
            return await edit(f"attempts of {subscription_id} are being recorded", attempt)
        except RefusedError:
            raise not_pending from None
