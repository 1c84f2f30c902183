"""The number of fast attempts that one outbox may have in flight while other outboxes are sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

MOST = 256  # fast attempts in flight that use a process fully
LEAST = 8  # for each turn, for any number of turns: the default of `max_concurrency`
FAST_SECONDS = 0.025  # an attempt in flight for longer waits for its receiver, not for this process


class SendShare:
    """Divides the capacity of this process among the running turns.

    More attempts at once than a process can handle are not faster: each opens its own connection
    and waits for its turn. So a `max_concurrency` above `LEAST` is used up to an equal share of
    `MOST`. Attempts that wait for a slow receiver cost nothing and do not count. `turns` is the
    number of running turns.
    """

    def __init__(self) -> None:
        self.turns = 0

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
