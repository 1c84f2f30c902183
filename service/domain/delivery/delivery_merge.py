"""Merges the deliveries of many subscriptions into one list, reading them in parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from itertools import chain

import msgspec


class Place(msgspec.Struct, frozen=True):
    """A delivery's place in the list: the number of its event's position and, among the deliveries
    of one event, its subscription. The place of a delivery never changes."""

    number: int
    subscription_id: str


class Look(msgspec.Struct, frozen=True):
    """A part of some subscriptions' deliveries to read: those from the position with the number
    `start`. `ranks` are the places of the subscriptions in their order."""

    start: int
    ranks: Sequence[int]
    subscription_ids: Sequence[str]


class Merge:
    """Gives the places of all deliveries within a span of positions, each exactly once.

    For each subscription, a few positions are known, and the position to read from. `looks` returns
    the subscriptions to read before the next place is certain, `found` takes the result of one
    read, and `take` returns the next place. So the reads follow the places that are taken, and not
    the number of deliveries.
    """

    def __init__(
        self,
        subscription_ids: Iterable[str],
        span: tuple[int, int],
        *,
        newest_first: bool,
        after: Place | None = None,
    ) -> None:
        """`span` is the first and the last position, as numbers; `after` the last place of the page
        before."""
        # Numbers are negated if the newest comes first, so that the smallest is always the next.
        self._sign = -1 if newest_first else 1
        start, self._end = sorted(self._sign * number for number in span)
        self._ids = sorted(subscription_ids, reverse=newest_first)
        self._known: list[tuple[int, int]] = []  # heap of the known places: number and rank
        self._unread: dict[int, list[int]] = {}  # the ranks to read from each position
        self._starts: list[int] = []  # heap of these positions
        if after is None:
            self._read_later(start, range(len(self._ids)))
            return
        at = self._sign * after.number
        last = after.subscription_id
        for rank, one in enumerate(self._ids):
            passed = one >= last if newest_first else one <= last
            self._read_later(max(start, at + passed), [rank])

    @property
    def end(self) -> int:
        """The number of the position at which the list ends."""
        return self._sign * self._end

    def looks(self, most: int) -> list[Look]:
        """The reads that the next place needs, all from the same position and each of at most
        `most` subscriptions; none if the place is known."""
        if not self._starts or (self._known and self._known[0][0] < self._starts[0]):
            return []
        start = heappop(self._starts)
        ranks = self._unread.pop(start)
        return [
            Look(self._sign * start, part, [self._ids[rank] for rank in part])
            for part in (ranks[at : at + most] for at in range(0, len(ranks), most))
        ]

    def found(self, look: Look, results: Sequence[Sequence[Sequence[int]]], most: int) -> None:
        """Takes the result of a read: for each subscription, and each source of its deliveries, the
        numbers of the first positions. A source with fewer than `most` is at its end."""
        sign, end, known = self._sign, self._end, self._known
        for rank, sources in zip(look.ranks, results, strict=True):
            known_to = end
            for source in sources:
                if len(source) >= most:
                    known_to = min(known_to, sign * source[-1])
            for number in {*chain(*sources)}:
                if (signed := sign * number) <= known_to:
                    heappush(known, (signed, rank))
            self._read_later(known_to + 1, [rank])

    def take(self) -> Place | None:
        """The next place; None after the last one."""
        if not self._known:
            return None
        number, rank = heappop(self._known)
        return Place(self._sign * number, self._ids[rank])

    def _read_later(self, start: int, ranks: Iterable[int]) -> None:
        if start > self._end:
            return
        if start not in self._unread:
            self._unread[start] = []
            heappush(self._starts, start)
        self._unread[start] += ranks
