"""The sandbox's clock, which can be set wrong."""

from __future__ import annotations

from collections.abc import Callable


class Clock:
    """The true time, and how far the clock that answers and records are dated by is from it.

    The log of changes, the log of what was served and the request budget keep the true time.
    """

    def __init__(self, source: Callable[[], int]) -> None:
        self._source = source
        self.skew = 0
        """In ms; negative where the clock is behind."""

    def now(self) -> int:
        """The true time, in ms since 1970."""
        return self._source()
