"""The request budget of an API key: so many requests in each minute that begins with one."""

from __future__ import annotations

from typing import Final

import msgspec

WINDOW_MS: Final = 60_000


class Allowance(msgspec.Struct, frozen=True):
    """Whether a request is accepted, and the budget until it is renewed."""

    granted: bool
    limit: int
    remaining: int
    reset_seconds: int


class Budget:
    """Counts requests in fixed windows of a minute."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._ends_at = 0
        self._spent = 0

    def renew(self, per_minute: int) -> None:
        """Begin a fresh window for this number of requests, which applies to later windows too."""
        self._per_minute = per_minute
        self._ends_at = 0

    def spend(self, now: int) -> Allowance:
        """Take one request from the budget at `now` (ms).

        A clock that was set back stays in its window, because otherwise the window would last for
        longer than a minute.
        """
        if not self._ends_at - WINDOW_MS <= now < self._ends_at:
            self._ends_at = now + WINDOW_MS
            self._spent = 0
        granted = self._spent < self._per_minute
        self._spent += granted
        reset = -(-(self._ends_at - now) // 1000)
        return Allowance(granted, self._per_minute, self._per_minute - self._spent, reset)
