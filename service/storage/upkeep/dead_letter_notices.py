"""Announces dead letters: one event a subscription, with their number and the reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, cast

from service.clock import now_ms
from service.domain.delivery.subscription import Subscription
from service.domain.errors import StaleRecordError, StaleSubscriptionsError
from service.domain.events.event import rfc3339
from service.domain.events.operational import Announcement, of_subscription
from service.storage.events.announcing import Announced, Notices, announced
from service.storage.redis import keys
from service.storage.redis.counters import Counters
from service.storage.redis.keys import Key
from service.storage.redis.scripts import Script, run
from service.storage.registry.matcher_cache import Matchers
from service.storage.registry.subscriptions import SubscriptionStore

if TYPE_CHECKING:
    from redis.asyncio import Redis

DELIVERIES_DEAD: Final = "subscription.deliveries_dead"
MAX_REASONS = 20  # reasons that one event names, the most frequent ones
_PAGE = 500  # subscriptions read together
_REASON = "for:"


class AnnounceDead(Script[None]):
    """Announces dead letters: subtracts `counts`, the number for each reason, from the unannounced
    ones and appends the event. Later dead letters stay for the next event. Begins with a removal,
    so that it runs even at Redis's memory limit.

    Refuses with SUBSCRIPTIONS, or with STALE if another process has announced them.
    """

    unannounced: Key
    announced: Announced
    counts: Mapping[str, int]


class DeadLetterNotices:
    """The scripts that make deliveries dead count them. This turns the counts into events, so that
    one event reports many dead letters, and each is counted in exactly one event."""

    def __init__(
        self,
        redis: Redis,
        counters: Counters,
        subscriptions: SubscriptionStore,
        matchers: Matchers,
    ) -> None:
        self._redis = redis
        self._counters = counters
        self._subscriptions = subscriptions
        self._matchers = matchers

    async def announce(self) -> int:
        """Announces the unannounced dead letters; returns the number of their subscriptions."""
        subscriptions, after = 0, None
        while True:
            page, after = await self._subscriptions.page(_PAGE, after)
            async with self._redis.pipeline(transaction=False) as pipeline:
                for subscription in page:
                    pipeline.hgetall(keys.outbox_unannounced(subscription.id))
                found = cast("list[dict[bytes, bytes]]", await pipeline.execute())
            for subscription, unannounced in zip(page, found, strict=True):
                if unannounced:
                    subscriptions += await self._announce(subscription, unannounced)
            if after is None:
                return subscriptions

    async def _announce(
        self, subscription: Subscription, unannounced: Mapping[bytes, bytes]
    ) -> bool:
        found = {name.decode(): int(count) for name, count in unannounced.items()}
        counts = {name: count for name, count in found.items() if name.startswith(_REASON)}
        if not counts:
            return False
        announcement = _announcement(subscription, counts, found)
        fresh = False
        while True:
            matcher = await self._matchers.current(fresh=fresh)
            announce = AnnounceDead(
                unannounced=keys.outbox_unannounced(subscription.id),
                announced=await announced(Notices(matcher, [announcement]), self._counters),
                counts=counts,
            )
            try:
                await run(self._redis, announce)
            except StaleSubscriptionsError:
                fresh = True
            except StaleRecordError:
                return False
            else:
                return True


def _announcement(
    subscription: Subscription, counts: Mapping[str, int], unannounced: Mapping[str, int]
) -> Announcement:
    frequent: Sequence[tuple[str, int]] = sorted(counts.items(), key=lambda one: -one[1])
    data = {
        "deliveries": sum(counts.values()),
        "reasons": [
            {"reason": name.removeprefix(_REASON), "deliveries": count}
            for name, count in frequent[:MAX_REASONS]
        ],
        "first_event_at": _time(unannounced, "first"),
        "last_event_at": _time(unannounced, "last"),
    }
    return of_subscription(subscription, DELIVERIES_DEAD, data)


def _time(unannounced: Mapping[str, int], name: str) -> str:
    """The time of the first or the last of the events; now, if it was announced meanwhile."""
    return rfc3339(unannounced.get(name) or now_ms())
