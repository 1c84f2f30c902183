"""The request budget of an API key: so many requests in each minute that begins with one."""

from __future__ import annotations

from typing import Final

import msgspec

WINDOW_MS: Final = 60_000


class Allowance(msgspec.Struct, frozen=True):
    """Whether a request may pass, and what is left until the budget is renewed."""

    granted: bool
    limit: int
    remaining: int
    reset_seconds: int


class Budget:
    """Counts requests in fixed windows of a minute."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._ends_at = 0
        self._spent = 0

    def spend(self, now: int) -> Allowance:
        """Take one request from the budget at `now` (ms)."""
        if now >= self._ends_at:
            self._ends_at = now + WINDOW_MS
            self._spent = 0
        granted = self._spent < self.per_minute
        self._spent += granted
        reset = -(-(self._ends_at - now) // 1000)
        return Allowance(granted, self.per_minute, self.per_minute - self._spent, reset)
