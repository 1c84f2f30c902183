"""Caches a snapshot of the subscriptions, and of their owners' grants, for matching events."""

from __future__ import annotations

from service.clock import now_ms
from service.domain.delivery.subscription import Matcher
from service.storage.registry.subscriptions import SubscriptionStore


class Matchers:
    """The current snapshot; the committing scripts detect when it is outdated."""

    def __init__(self, subscriptions: SubscriptionStore) -> None:
        self._subscriptions = subscriptions
        self._current: Matcher | None = None

    async def current(self, *, fresh: bool = False) -> Matcher:
        """The current snapshot, or a `fresh` one: also once an API key in it has expired."""
        current, now = self._current, now_ms()
        if current is None or fresh or current.has_expired(now):
            version, subscriptions, api_keys = await self._subscriptions.all_for_matching()
            current = self._current = Matcher(version, subscriptions, api_keys, now)
        return current
