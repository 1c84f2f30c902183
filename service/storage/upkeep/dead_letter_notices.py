"""Announces deliveries that have died: many in one event, whatever killed them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, cast

from service.clock import now_ms
from service.domain.delivery.subscription import Subscription
from service.domain.errors import StaleRecordError, StaleSubscriptionsError
from service.domain.events.event import rfc3339
from service.domain.events.operational import Announcement, of_subscription
from service.storage.events.operational import Announced, Notices, announced
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
    """Announces deliveries that have died: takes the number `told` for each reason out of what is
    untold and appends the event that tells it. What has died since it was read stays for the next.
    Begins with a removal, so that it still runs when Redis is at its memory limit.

    Refuses with SUBSCRIPTIONS, or with STALE if another has told of them.
    """

    untold: Key
    announced: Announced
    told: Mapping[str, int]


class Deaths:
    """The scripts that give deliveries up count them; here is told what they have counted, so
    that a flood of deaths is one event each time, and every death is in one of them."""

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
        """Tells what nobody has been told of yet; returns of how many subscriptions that was."""
        told, after = 0, None
        while True:
            page, after = await self._subscriptions.page(_PAGE, after)
            async with self._redis.pipeline(transaction=False) as pipeline:
                for subscription in page:
                    pipeline.hgetall(keys.outbox_untold(subscription.id))
                found = cast("list[dict[bytes, bytes]]", await pipeline.execute())
            for subscription, untold in zip(page, found, strict=True):
                if untold:
                    told += await self._tell(subscription, untold)
            if after is None:
                return told

    async def _tell(self, subscription: Subscription, untold: Mapping[bytes, bytes]) -> bool:
        found = {name.decode(): int(count) for name, count in untold.items()}
        counts = {name: count for name, count in found.items() if name.startswith(_REASON)}
        if not counts:
            return False
        announcement = _announcement(subscription, counts, found)
        fresh = False
        while True:
            matcher = await self._matchers.current(fresh=fresh)
            announce = AnnounceDead(
                untold=keys.outbox_untold(subscription.id),
                announced=await announced(Notices(matcher, [announcement]), self._counters),
                told=counts,
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
    subscription: Subscription, counts: Mapping[str, int], untold: Mapping[str, int]
) -> Announcement:
    frequent: Sequence[tuple[str, int]] = sorted(counts.items(), key=lambda one: -one[1])
    said = {
        "deliveries": sum(counts.values()),
        "reasons": [
            {"reason": name.removeprefix(_REASON), "deliveries": count}
            for name, count in frequent[:MAX_REASONS]
        ],
        "first_event_at": _time(untold, "first"),
        "last_event_at": _time(untold, "last"),
    }
    return of_subscription(subscription, DELIVERIES_DEAD, said)


def _time(untold: Mapping[str, int], name: str) -> str:
    """When the earliest or the latest of their events happened; now, if another has just told."""
    return rfc3339(untold.get(name) or now_ms())
