"""Merges the deliveries of many subscriptions into one list, reading them in parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush

import msgspec


class Place(msgspec.Struct, frozen=True):
    """A delivery's place in the list: the number of its event's position and, among the deliveries
    of one event, its subscription. The place of a delivery never changes."""

    number: int
    subscription_id: str


class Look(msgspec.Struct, frozen=True):
    """A part of a subscription's deliveries to read: those from the position with the number
    `start`."""

    rank: int
    subscription_id: str
    start: int


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
        starts = [start] * len(self._ids)
        if after is not None:
            at = self._sign * after.number
            last = after.subscription_id
            starts = [
                max(start, at + (one >= last if newest_first else one <= last)) for one in self._ids
            ]
        # Known places, and the places where a subscription must be read.
        self._heap = [(one, rank, False) for rank, one in enumerate(starts) if one <= self._end]
        heapify(self._heap)

    @property
    def end(self) -> int:
        """The number of the position at which the list ends."""
        return self._sign * self._end

    def looks(self, most: int) -> list[Look]:
        """The reads that the next place needs, at most `most` and all from the same position; none
        if the place is known."""
        looks: list[Look] = []
        first = self._heap[0][0] if self._heap else 0
        while len(looks) < most and self._heap and self._heap[0][0] == first:
            if self._heap[0][2]:
                break
            number, rank, _ = heappop(self._heap)
            looks.append(Look(rank, self._ids[rank], self._sign * number))
        return looks

    def found(self, look: Look, sources: Sequence[Sequence[int]], most: int) -> None:
        """Takes the result of a read: for each source of a subscription's deliveries, the numbers
        of the first positions. A source with fewer than `most` is at its end."""
        numbers: set[int] = set()
        known_to = self._end
        for source in sources:
            numbers.update(source)
            if len(source) >= most:
                known_to = min(known_to, self._sign * source[-1])
        for number in numbers:
            if (signed := self._sign * number) <= known_to:
                heappush(self._heap, (signed, look.rank, True))
        if known_to < self._end:
            heappush(self._heap, (known_to + 1, look.rank, False))

    def take(self) -> Place | None:
        """The next place; None after the last one."""
        if not self._heap:
            return None
        number, rank, _ = heappop(self._heap)
        return Place(self._sign * number, self._ids[rank])
