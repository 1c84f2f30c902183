"""The sandbox's clock, which can be set wrong."""

from __future__ import annotations

from collections.abc import Callable


class Clock:
    """The true time, and the difference of the clock that dates responses and records.

    The log of changes, the log of requests and the request budget use the true time.
    """

    def __init__(self, source: Callable[[], int]) -> None:
        self._source = source
        self.skew = 0
        """In ms; negative if the clock is behind."""

    def now(self) -> int:
        """The true time, in ms since 1970."""
        return self._source()
