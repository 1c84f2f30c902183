"""Keeps for a second what was read from Redis, for what is asked far more often than it changes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

Value = TypeVar("Value")

SECONDS: Final = 1.0  # that a value is kept: a change made by another process takes that long
_MOST = 1_000  # values


class RecentReads(Generic[Value]):
    """Values by name. None is not kept, so what does not exist yet is found once it does."""

    def __init__(
        self,
        read: Callable[[str], Awaitable[Value]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self._read = read
        self._kept: dict[str, tuple[Value, float]] = {}

    async def get(self, name: str) -> Value:
        """A value, at most a second old. Raises what reading it raises."""
        now = self.clock()
        if (kept := self._kept.get(name)) is not None and now - kept[1] < SECONDS:
            return kept[0]
        value = await self._read(name)
        self.forget(name)
        if value is not None:
            if len(self._kept) >= _MOST:
                del self._kept[next(iter(self._kept))]  # the one read longest ago
            self._kept[name] = value, now
        return value

    def forget(self, name: str) -> None:
        """The value is read again when it is next asked for."""
        self._kept.pop(name, None)
