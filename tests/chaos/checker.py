"""Holds what every subscriber received against every state that the upstream had.

It knows nothing of the service but what subscribers are promised, and shares no code with it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import msgspec

from tests.chaos.history import History, Receipt, State, Told

AFTER_A_CUT = 60.0  # seconds for which a sender may still send what it had read before
SHOWN = 20  # complaints

MUST_BE_ZERO = (
    "lost", "invented", "out_of_order", "differing_bytes", "unverified", "dead", "leaked_keys",
    "reused", "refused",
)  # fmt: skip

Course = tuple[str, str]


class Report(msgspec.Struct):
    """How often what was seen, and in words what must not have been."""

    counts: Counter[str]
    complaints: list[str]

    @property
    def sound(self) -> bool:
        """Whether nothing was seen that must not be."""
        return not any(self.counts[name] for name in MUST_BE_ZERO)

    def summary(self) -> dict[str, int]:
        """The counts, those included that are zero."""
        names = ("changes", "receipts", *MUST_BE_ZERO, "duplicates", "cuts", "forgotten",
                 "found_again", "fenced", "crossed")  # fmt: skip
        return {name: self.counts[name] for name in names}


def check(history: History) -> Report:
    """Judges a run that has come to rest: nothing changes or is pending any more."""
    return _Checker(history).report()


class _First(msgspec.Struct, frozen=True):
    """The first receipt of an event by a subscriber, and when it first acknowledged the event."""

    event: Told
    receipt: Receipt
    acknowledged_at: float | None


class _Checker:
    def __init__(self, history: History) -> None:
        self._history = history
        self._counts: Counter[str] = Counter()
        self._complaints: list[str] = []
        self._logged = {event.id for event in history.log}
        self._states: dict[Course, list[State]] = defaultdict(list)
        for state in history.states:
            self._states[state.upstream_id, state.course_id].append(state)

    def report(self) -> Report:
        history = self._history
        self._counts["changes"] = len(history.states) - len(self._states)
        self._counts["receipts"] = len(history.receipts)
        self._counts["cuts"] = len(history.cuts)
        self._counts["fenced"] = history.fenced
        for _ in range(history.dead):
            self._complain("dead", "a delivery was given up")
        for key in history.leaked:
            self._complain("leaked_keys", key)
        for words in history.refused:
            self._complain("refused", words)
        if history.reused:
            words = f"{history.reused} requests on connections known to carry unasked bytes"
            self._complain("reused", words, history.reused)
        self._counts["crossed"] = history.crossed
        received: dict[str, list[Receipt]] = {name: [] for name in history.subscribers}
        for receipt in history.receipts:
            received[receipt.subscriber].append(receipt)
        bodies: dict[str, str] = {}
        for name, receipts in received.items():
            self._check_bytes(name, receipts, bodies)
            self._check_subscriber(name, receipts)
        return Report(self._counts, self._complaints)

    def _complain(self, what: str, words: str, count: int = 1) -> None:
        self._counts[what] += count
        if len(self._complaints) < SHOWN:
            self._complaints.append(f"{what}: {words}")

    def _check_bytes(self, name: str, receipts: Sequence[Receipt], bodies: dict[str, str]) -> None:
        """One id, one body, whoever receives it: all subscribe to the same rendering."""
        seen: set[str] = set()
        for receipt in receipts:
            if not receipt.verified:
                self._complain("unverified", f"{name} got {receipt.id} without a valid signature")
            if receipt.id in seen:
                self._counts["duplicates"] += 1
            seen.add(receipt.id)
            if bodies.setdefault(receipt.id, receipt.body) != receipt.body:
                self._complain("differing_bytes", f"{name} got {receipt.id} with other bytes")
            elif self._history.events[receipt.body].id != receipt.id:
                self._complain("differing_bytes", f"{receipt.id} carries another event's body")

    def _check_subscriber(self, name: str, receipts: Sequence[Receipt]) -> None:
        wanted = set(self._history.subscribers[name])
        got = {receipt.id for receipt in receipts}
        # Replays prove nothing: the delivery itself has to end, too.
        taken = {one.id for one in receipts if one.acknowledged_at is not None and not one.replay}
        for event in self._history.log:
            if event.upstream_id in wanted and event.id not in taken:
                what = "never took" if event.id in got else "never got"
                self._complain("lost", f"{name} {what} {event.type} {event.id}")
        by_course: dict[Course, list[_First]] = defaultdict(list)
        for first in self._firsts(receipts):
            by_course[first.event.upstream_id, first.event.course_id].append(first)
        for course in by_course:
            if course[0] not in wanted:
                self._complain("invented", f"{name} is told of {course}, which it did not ask for")
            elif course not in self._states:
                self._complain("invented", f"{name} is told of {course}, which there never was")
        for course, states in self._states.items():
            if course[0] in wanted:
                firsts = by_course[course]
                self._check_order(name, firsts)
                self._check_content(name, states, firsts)

    def _firsts(self, receipts: Sequence[Receipt]) -> Iterator[_First]:
        """Events in the order of their first receipts; replays apart, which keep another."""
        firsts: dict[str, Receipt] = {}
        acknowledged: dict[str, float] = {}
        for receipt in receipts:
            if receipt.replay:
                continue
            firsts.setdefault(receipt.id, receipt)
            if receipt.acknowledged_at is not None:
                acknowledged.setdefault(receipt.id, receipt.acknowledged_at)
        for receipt in firsts.values():
            event = self._history.events[receipt.body]
            yield _First(event, receipt, acknowledged.get(receipt.id))

    def _forgotten(self, first: _First) -> bool:
        return first.event.id not in self._logged

    def _check_order(self, name: str, firsts: Sequence[_First]) -> None:
        """Sequences rise, and nothing is sent before what precedes it was acknowledged."""
        waiting: list[_First] = []
        highest = 0
        for first in firsts:
            event = first.event
            if event.sequence <= highest:
                self._complain("out_of_order", f"{name} got {event.id} after a later event")
            highest = max(highest, event.sequence)
            waiting = [
                earlier
                for earlier in waiting
                if earlier.acknowledged_at is None or earlier.acknowledged_at > first.receipt.at
            ]
            # What the server forgot before it was acknowledged is nobody's to send again.
            for earlier in waiting:
                if not self._forgotten(earlier):
                    self._complain(
                        "out_of_order", f"{name} got {event.id} before it took {earlier.event.id}"
                    )
            waiting.append(first)

    def _check_content(self, name: str, states: Sequence[State], firsts: Sequence[_First]) -> None:
        """Each event is a step to a state that there was, from the one told before, and the last
        one tells how it is."""
        previous: _First | None = None
        at_state = 0
        lasting = 0  # the highest sequence that the server remembers
        known: set[int] = set()
        for first in sorted(firsts, key=lambda one: one.event.sequence):
            event = first.event
            if self._forgotten(first):
                self._counts["forgotten"] += 1
                if not any(first.receipt.at < cut + AFTER_A_CUT for cut in self._history.cuts):
                    self._complain("invented", f"{name} got {event.id}, which is not in the log")
            if event.previous_sequence is not None and event.previous_sequence not in known:
                self._complain("lost", f"{name} got {event.id}, but not the event it follows")
            elif (event.previous_sequence or 0) < lasting:
                self._complain("invented", f"{event.id} does not follow the event before it")
            step = self._step(states, event, first.receipt.at, at_state)
            if step is None:
                self._complain("invented", f"{name} got {event.id}, of what never was, or earlier")
            else:
                at_state = step
            if previous is not None and _says_the_same(previous.event, event):
                if self._forgotten(previous):
                    self._counts["found_again"] += 1
                else:
                    self._complain("invented", f"{event.id} tells of no change to {name}")
            known.add(event.sequence)
            if not self._forgotten(first):
                lasting = event.sequence
            previous = first
        content = states[-1].content
        last = None if previous is None else previous.event.content
        if content != last:
            what = "of nothing" if previous is None else f"of {previous.event.id}"
            self._complain("lost", f"{name} was last told {what}, not how {states[-1]} is")

    @staticmethod
    def _step(states: Sequence[State], event: Told, seen_at: float, start: int) -> int | None:
        """The first state from `start` on that the event may show; none is from after `seen_at`."""
        end = bisect_right(states, seen_at, key=lambda state: state.at)
        for index in range(start, end):
            if states[index].content == event.content:
                return index
        return None


def _says_the_same(before: Told, after: Told) -> bool:
    return before.content == after.content
