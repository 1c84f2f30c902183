"""How many fast attempts one outbox may have in flight while others are being sent as well."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

MOST = 256  # fast attempts in flight in all that make good use of a process
LEAST = 8  # for each turn, however many turns there are: the default of `max_concurrency`
FAST_SECONDS = 0.025  # an attempt in flight for longer waits for its receiver, not for this process


class SendShare:
    """Divides what keeps this process busy among the turns under way.

    More attempts at once than a process can answer for are not faster: each opens a connection of
    its own and waits for its turn. So a `max_concurrency` beyond `LEAST` is used up to an equal
    share of `MOST`. Attempts that wait for a slow receiver cost nothing and do not count.
    """

    def __init__(self) -> None:
        self._turns = 0

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A turn is under way."""
        self._turns += 1
        try:
            yield
        finally:
            self._turns -= 1

    @property
    def attempts(self) -> int:
        """How many fast attempts a turn may have in flight."""
        return max(LEAST, MOST // max(1, self._turns))
