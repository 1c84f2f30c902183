"""Whether the events that arrived agree with the sandbox's own log of changes.

Pure. A poll shows the state of one moment, and changes between two polls merge. So events are not
matched with changes one to one. Each event must instead be the step from a state that an earlier
poll may have shown to one that a later poll may have shown. At the end every settled change that a
step had to report must be reported. A course's log determines each step from one state to a later
one:

- a path touched once in between differs, and an update must name it;
- a path touched more often may have come back to what it was, so an update may name it;
- a path not touched is the same, and no update may name it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from service.domain.courses.tracked_paths import REMOTE_DATA_PATHS

CLOCK_TOLERANCE: Final = timedelta(seconds=1)
"""The maximum time by which an event's detection may precede its change: the sandbox dates the
changes of one request a millisecond apart, which may be ahead of the clock."""

_TOMBSTONES: Final = frozenset({"delete", "anonymise"})
_GOING: Final = _TOMBSTONES | {"vanish"}
_UNSETTLED_NAMED: Final = 5
"""Changes that one line names before it counts the rest."""


class LoggedChange(msgspec.Struct, frozen=True):
    """One change as the sandbox's control API lists it; numbers rise by one over all courses."""

    n: int
    at: datetime
    op: str
    course_id: str
    paths: tuple[str, ...] = ()

    def __str__(self) -> str:
        paths = f" of {', '.join(self.paths)}" if self.paths else ""
        return f"#{self.n} {self.op}{paths}"


class ReportedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The compared part of a verified event, each id once, in the order of arrival."""

    id: str
    type: str
    timestamp: datetime
    course_id: str
    sequence: int
    previous_sequence: int | None = None
    changed: tuple[str, ...] = ()
    reason: str | None = None
    evidence: str | None = None

    def __str__(self) -> str:
        said = ", ".join(filter(None, (*self.changed, self.reason, self.evidence)))
        return f"{self.type} {self.id}{f' ({said})' if said else ''}"


def disagreements(
    known: Collection[str],
    log: Iterable[LoggedChange],
    events: Iterable[ReportedEvent],
    *,
    settled: int = 0,
    untracked: Collection[str] = REMOTE_DATA_PATHS,
) -> list[str]:
    """The contradictions between `events` and `log`, in words; empty if they agree. `known` are the
    courses that were live, and known to the service, before the first change of `log`. Changes
    numbered up to `settled` must have been reported by now; later ones may have been. Changes of
    `untracked` paths are ignored.
    """
    changes: Mapping[str, list[LoggedChange]] = defaultdict(list)
    for change in log:
        changes[change.course_id].append(change)
    reported: Mapping[str, list[ReportedEvent]] = defaultdict(list)
    for event in events:
        reported[event.course_id].append(event)
    found = []
    for course_id in dict.fromkeys((*changes, *reported)):
        history = _History(course_id in known, changes.get(course_id, []), untracked)
        problem = _problem(history, reported.get(course_id, []), settled)
        if problem is not None:
            found.append(f"course {course_id}: {problem}")
    return found


def _problem(history: _History, events: Sequence[ReportedEvent], settled: int) -> str | None:
    """The contradictions in the events of one course."""
    # All states that the last event may have shown: 0 is the one before the first change.
    shown = {0}
    previous: ReportedEvent | None = None
    for event in events:
        expected = previous.sequence if previous is not None else None
        if event.previous_sequence != expected:
            return (
                f"{event} says it follows sequence {event.previous_sequence}, "
                f"but the event before it had {expected}"
            )
        if previous is not None and event.sequence <= previous.sequence:
            return f"{event} has sequence {event.sequence}, not above {previous.sequence}"
        latest = history.state_by(event.timestamp + CLOCK_TOLERANCE)
        after = {
            end
            for start in shown
            for end in range(start + 1, latest + 1)
            if history.explains(event, start, end)
        }
        if not after:
            since = history.changes[min(shown) :]
            return f"{event} reports what is not in the log, which has {_listed(since)}"
        shown, previous = after, event
    due = sum(change.n <= settled for change in history.changes)
    silent = any(
        start >= due
        or any(history.is_silent(start, end) for end in range(due, len(history.changes) + 1))
        for start in shown
    )
    if silent:
        return None
    return f"never reported: {_listed(history.changes[max(shown) : due])}"


def _listed(changes: Sequence[LoggedChange]) -> str:
    if not changes:
        return "nothing more of it"
    named = "; ".join(str(change) for change in changes[:_UNSETTLED_NAMED])
    rest = len(changes) - _UNSETTLED_NAMED
    return f"{named}; and {rest} more" if rest > 0 else named


class _History:
    """The states of one course: number `k` is the state after `k` changes."""

    def __init__(
        self, known: bool, changes: Sequence[LoggedChange], untracked: Collection[str]
    ) -> None:
        self.changes = changes
        self._known = known
        self._untracked = frozenset(untracked)

    def state_by(self, moment: datetime) -> int:
        """The last state that a poll can have shown by then."""
        return bisect_right(self.changes, moment, key=lambda change: change.at)

    def _exists(self, state: int) -> bool:
        return self._known or state > 0

    def _live(self, state: int) -> bool:
        if state == 0:
            return self._known
        return self.changes[state - 1].op not in _GOING

    def _touched(self, start: int, end: int) -> Counter[str]:
        touched = Counter(
            path
            for change in self.changes[start:end]
            for path in set(change.paths) - self._untracked
        )
        if any(change.op == "restore" for change in self.changes[start:end]):
            # A restored course has its provider's current name, which changes of other courses may
            # have replaced: an update may name it.
            touched["provider"] += 2
        return touched

    def explains(self, event: ReportedEvent, start: int, end: int) -> bool:
        """Whether `event` reports the step from state `start` to state `end`."""
        last = self.changes[end - 1]
        match event.type:
            case "course.created":
                return self._live(end) and event.reason in self._reasons(start, end)
            case "course.deleted":
                evidence = "tombstone" if last.op in _TOMBSTONES else "absence"
                return self._live(start) and not self._live(end) and event.evidence == evidence
            case "course.updated":
                named, touched = set(event.changed), self._touched(start, end)
                once = {path for path, times in touched.items() if times == 1}
                return (
                    self._live(start)
                    and self._live(end)
                    and bool(named)
                    and once <= named <= touched.keys()
                )
        return False

    def _reasons(self, start: int, end: int) -> set[str | None]:
        """The reasons that a creation may give."""
        if self._live(start):
            return set()
        if self._exists(start):
            return {"restored"}
        # A tombstone that was seen in between was recorded without an event.
        if any(change.op in _TOMBSTONES for change in self.changes[start:end]):
            return {None, "restored"}
        return {None}

    def is_silent(self, start: int, end: int) -> bool:
        """Whether the step from state `start` to state `end` may occur without an event."""
        if not self._live(start):
            return not self._live(end)
        return self._live(end) and 1 not in self._touched(start, end).values()
