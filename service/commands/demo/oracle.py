"""Whether the events that arrived agree with the sandbox's own log of changes.

Pure. Nobody sees every state of a course: a poll shows the state of one moment, and changes
between two polls merge. So events are not matched with changes one to one. Each event must
instead be the step from a state that an earlier poll may have shown to one that a later poll
may have shown, and at the end no settled change may be left that some step had to report.

What a course's log says of a step from one state to a later one:

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
"""How far an event's detection may lie before the change it reports: the sandbox gives each
change of one request a millisecond of its own, which may lie ahead of the clock."""

_TOMBSTONES: Final = frozenset({"delete", "anonymise"})
_GOING: Final = _TOMBSTONES | {"vanish"}
_UNSETTLED_NAMED: Final = 5
"""How many changes one line names before it counts the rest."""


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
    """What is compared of a verified event, each id once, in the order of arrival."""

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
    """Every way in which `events` contradict `log`, in words; empty where they agree.

    `known` are the courses that were live before the first change of `log`, and known to the
    service by then. Changes numbered up to `settled` must have been reported by now; later
    ones may have been. Changes of `untracked` paths are nobody's concern.
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
    """What is wrong with the events of one course, if anything."""
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
    """The states that one course went through: number `k` is the one after `k` changes."""

    def __init__(
        self, known: bool, changes: Sequence[LoggedChange], untracked: Collection[str]
    ) -> None:
        self.changes = changes
        self._known = known
        self._untracked = frozenset(untracked)

    def state_by(self, moment: datetime) -> int:
        """The last state that anybody can have seen by then."""
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
            # A course comes back under the name that its provider has by then, which others
            # may have had changed: it may be named, and need not be.
            touched["provider"] += 2
        return touched

    def explains(self, event: ReportedEvent, start: int, end: int) -> bool:
        """Whether the step from state `start` to state `end` is what `event` reports."""
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
        """What a creation may give as its reason."""
        if self._live(start):
            return set()
        if self._exists(start):
            return {"restored"}
        # A tombstone that was seen in between was recorded without an event.
        if any(change.op in _TOMBSTONES for change in self.changes[start:end]):
            return {None, "restored"}
        return {None}

    def is_silent(self, start: int, end: int) -> bool:
        """Whether the step from state `start` to state `end` may go without an event."""
        if not self._live(start):
            return not self._live(end)
        return self._live(end) and 1 not in self._touched(start, end).values()
