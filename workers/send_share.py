"""The number of fast attempts that one outbox may have in flight while other outboxes are sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

MOST = 256  # fast attempts in flight that use a process fully
LEAST = 8  # for each turn, for any number of turns: the default of `max_concurrency`
_FAST_SECONDS = 0.025  # for an attempt, if this process is idle
_STEPS = 8  # iterations of the event loop that an attempt takes
_WEIGHT = 1 / 64  # of the latest delay


class SendShare:
    """Divides the capacity of this process among the running turns.

    More attempts at once than a process can handle are not faster: each opens its own connection
    and waits for its turn. So a `max_concurrency` above `LEAST` is used up to an equal share of
    `MOST`. Attempts that wait for a slow receiver cost nothing and do not count. `turns` is the
    number of running turns.
    """

    def __init__(self) -> None:
        self.turns = 0
        self._delay = 0.0  # seconds by which the busy event loop delays a new task, smoothed

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Registers a turn while it runs."""
        self.turns += 1
        try:
            yield
        finally:
            self.turns -= 1

    @property
    def attempts(self) -> int:
        """The number of fast attempts that a turn may have in flight."""
        return max(LEAST, MOST // max(1, self.turns))

    @property
    def fast_seconds(self) -> float:
        """An attempt in flight for longer waits for its receiver, not for this process."""
        return _FAST_SECONDS + _STEPS * self._delay

    def note_delay(self, seconds: float) -> None:
        """Takes the time from the creation of an attempt's task to its first step."""
        self._delay += (seconds - self._delay) * _WEIGHT
