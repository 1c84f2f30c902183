"""Caches values from Redis for a second, if they are read far more often than they change."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

Value = TypeVar("Value")

SECONDS: Final = 1.0  # for which a value is cached: the maximum delay of changes by other processes
_MOST = 1_000  # values


class RecentReads(Generic[Value]):
    """Values by name. None is not cached, so new values are found at once."""

    def __init__(
        self,
        read: Callable[[str], Awaitable[Value]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self._read = read
        self._kept: dict[str, tuple[Value, float]] = {}

    async def get(self, name: str) -> Value:
        """A value, at most a second old. Raises the errors of reading it."""
        now = self.clock()
        if (kept := self._kept.get(name)) is not None and now - kept[1] < SECONDS:
            return kept[0]
        value = await self._read(name)
        self.forget(name)
        if value is not None:
            if len(self._kept) >= _MOST:
                del self._kept[next(iter(self._kept))]  # the least recently read one
            self._kept[name] = value, now
        return value

    def forget(self, name: str) -> None:
        """Removes the value, so that it is read again at the next request."""
        self._kept.pop(name, None)
