"""Keeps a snapshot of the subscriptions for matching events."""

from __future__ import annotations

from service.domain.subscriptions import Matcher
from service.storage.subscriptions import SubscriptionStore


class Matchers:
    """The snapshot in use; the committing scripts tell when it is out of date."""

    def __init__(self, subscriptions: SubscriptionStore) -> None:
        self._subscriptions = subscriptions
        self._current: Matcher | None = None

    async def current(self, *, fresh: bool = False) -> Matcher:
        """The snapshot in use, or a `fresh` one."""
        if self._current is None or fresh:
            version, subscriptions = await self._subscriptions.all_for_matching()
            self._current = Matcher(version, subscriptions)
        return self._current
