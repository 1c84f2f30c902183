"""Caches values from Redis for a second, if they are read far more often than they change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Final, Generic, TypeVar

Value = TypeVar("Value")

SECONDS: Final = 1.0  # for which a value is cached: the maximum delay of changes by other processes
_MOST = 1_000  # values


class RecentReads(Generic[Value]):
    """Values by name. None is not cached, so new values are found at once. Callers that need one
    at the same time share one read. Belongs to the running event loop."""

    def __init__(
        self,
        read: Callable[[str], Coroutine[Any, Any, Value]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self._read = read
        self._kept: dict[str, tuple[Value, float]] = {}
        self._reading: dict[str, tuple[asyncio.Task[Value], float]] = {}

    async def get(self, name: str) -> Value:
        """A value, at most a second old. Raises the errors of reading it."""
        now = self.clock()
        if (kept := self._kept.get(name)) is not None and now - kept[1] < SECONDS:
            return kept[0]
        reading = self._reading.get(name)
        if reading is None or now - reading[1] >= SECONDS:
            # In a task of its own: a caller that is cancelled fails none that waits for the same.
            task = asyncio.create_task(self._read_and_keep(name, now), context=Context())
            reading = self._reading[name] = task, now
        return await asyncio.shield(reading[0])

    def forget(self, name: str) -> None:
        """Removes the value, so that it is read again at the next request."""
        self._kept.pop(name, None)
        self._reading.pop(name, None)

    async def _read_and_keep(self, name: str, now: float) -> Value:
        reading = asyncio.current_task(), now
        try:
            value = await self._read(name)
        finally:
            is_latest = self._reading.get(name) == reading  # and was not forgotten meanwhile
            if is_latest:
                self.forget(name)
        if is_latest and value is not None:
            if len(self._kept) >= _MOST:
                del self._kept[next(iter(self._kept))]  # the one read longest ago
            self._kept[name] = value, now
        return value
