"""Announces dead letters: one event a subscription says how many there are, and why."""

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
MAX_REASONS = 20  # that one event names, the most frequent ones
_PAGE = 500  # subscriptions looked at together
_REASON = "for:"


class AnnounceDead(Script[None]):
    """Announces dead letters: takes `counts`, the number for each reason, out of the unannounced
    ones and appends the event. What has died since it was read stays for the next event. Begins
    with a removal, so that it still runs when Redis is at its memory limit.

    Refuses with SUBSCRIPTIONS, or with STALE if another process has announced them.
    """

    unannounced: Key
    announced: Announced
    counts: Mapping[str, int]


class DeadLetterNotices:
    """The scripts that give deliveries up count them. Here the counts become events, so that many
    dead letters are one event, and each is counted in exactly one."""

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
        """Announces the dead letters not announced yet; returns of how many subscriptions."""
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
    """When the first or the last of the events happened; now, if it was announced meanwhile."""
    return rfc3339(unannounced.get(name) or now_ms())
