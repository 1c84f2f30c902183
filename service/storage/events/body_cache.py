"""Caches rendered events for a few seconds."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

import msgspec

MAX_BODIES = 2_048
MAX_BYTES = 8_388_608
LIFETIME_SECONDS = 5.0

Value = TypeVar("Value")


class _Kept(msgspec.Struct, Generic[Value], frozen=True):
    value: Value
    size: int
    expires: float


class BodyCache(Generic[Value]):
    """Shares rendered events between readers in this process that need the same one at about the
    same time.

    Course text is not hoarded: the cache holds at most 2,048 bodies and 8 MiB of them, and removes
    each one 5 seconds after it was put in, whether or not the cache is used. When it is full, the
    oldest bodies go first. Belongs to the running event loop.
    """

    def __init__(
        self,
        *,
        most: int = MAX_BODIES,
        most_bytes: int = MAX_BYTES,
        lifetime: float = LIFETIME_SECONDS,
    ) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._lifetime = lifetime
        self._kept: OrderedDict[Hashable, _Kept[Value]] = OrderedDict()  # the oldest first
        self._bytes = 0
        self._cleaned_by: asyncio.AbstractEventLoop | None = None

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable) -> Value | None:
        """The value under a key, None if there is none or it has expired."""
        kept = self._kept.get(key)
        return None if kept is None or kept.expires <= time.monotonic() else kept.value

    def put(self, values: Iterable[tuple[Hashable, Value, int]]) -> None:
        """Stores values under their keys, each with the number of bytes that it takes."""
        kept, expires = self._kept, time.monotonic() + self._lifetime
        for key, value, size in values:
            if key in kept:
                self._bytes -= kept.pop(key).size
            if size <= self._most_bytes:
                kept[key] = _Kept(value, size, expires)
                self._bytes += size
        while len(kept) > self._most or self._bytes > self._most_bytes:
            self._remove_oldest()
        loop = asyncio.get_running_loop()
        if kept and self._cleaned_by is not loop:
            self._cleaned_by = loop
            loop.call_later(self._lifetime, self._remove_expired, loop)

    def clear(self) -> None:
        """Removes everything."""
        self._kept.clear()
        self._bytes = 0

    def _remove_oldest(self) -> None:
        _, removed = self._kept.popitem(last=False)
        self._bytes -= removed.size

    def _remove_expired(self, loop: asyncio.AbstractEventLoop) -> None:
        now = time.monotonic()
        while self._kept and (wait := next(iter(self._kept.values())).expires - now) <= 0:
            self._remove_oldest()
        if self._kept:
            loop.call_later(wait, self._remove_expired, loop)
        else:
            self._cleaned_by = None
