"""Reads the events of outbox entries: from the log, or backfilled for one outbox."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from service.domain.events.event import StoredEvent
from service.domain.events.identifiers import backfilled_place, is_backfilled
from service.storage.events.event_log import EventLog, read_event
from service.storage.redis import keys

if TYPE_CHECKING:
    from redis.asyncio import Redis


class OutboxEvents:
    """Reads events by the positions in outboxes, attempts and dead deliveries."""

    def __init__(self, redis: Redis, log: EventLog) -> None:
        self._redis = redis
        self._log = log

    async def get_many(
        self, subscription_id: str, positions: Sequence[str]
    ) -> list[StoredEvent | None]:
        """The events at `positions`, None for one that is no longer retained."""
        own = [one for one in positions if is_backfilled(one)]
        if not own:
            return await self._log.get_many(positions)
        found = dict(zip(own, await self._backfilled(subscription_id, own), strict=True))
        others = [one for one in positions if one not in found]
        found |= zip(others, await self._log.get_many(others), strict=True)
        return [found[one] for one in positions]

    async def heads(self, places: Sequence[tuple[str, str]]) -> list[StoredEvent | None]:
        """The events at places, each the id of a subscription and a position, those of the log
        without their bodies; None for one that is no longer retained."""
        logged = list(dict.fromkeys(one for _, one in places if not is_backfilled(one)))
        events = await self._log.get_many(logged, bodies=False)
        of_log = dict(zip(logged, events, strict=True))
        own: dict[str, list[str]] = {}
        for subscription_id, position in places:
            if position not in of_log:
                own.setdefault(subscription_id, []).append(position)
        backfilled = {
            (subscription_id, position): event
            for subscription_id, positions in own.items()
            for position, event in zip(
                positions, await self._backfilled(subscription_id, positions), strict=True
            )
        }
        return [backfilled.get(place, of_log.get(place[1])) for place in places]

    async def _backfilled(
        self, subscription_id: str, positions: Sequence[str]
    ) -> list[StoredEvent | None]:
        key = keys.backfilled(subscription_id)
        async with self._redis.pipeline(transaction=False) as pipeline:
            for position in positions:
                place = backfilled_place(position)
                pipeline.xrange(key, place, place)
            entries = await pipeline.execute()
        return [
            read_event(position.encode(), entry[0][1]) if entry else None
            for position, entry in zip(positions, entries, strict=True)
        ]
