"""A naive consumer of events, and what every event must be to it."""

from __future__ import annotations

from typing import Any

import msgspec

from service.domain.events.event import StoredEvent
from tests.histories.upstream import Upstream, differing

ALL = ""  # every path that no update has named since


class Consumer:
    """Keeps the courses as the events tell them: upserts what is created or updated, removes
    what is deleted.

    `courses` is what it holds. `told` is what has been reported: of an update, its `changed`
    paths alone, so that a report of what was reported already is noticed. `unnamed` are the paths
    of a course that have changed after the last event with their name in `changed`. Each version of
    a course has a number, and the numbers of later events are never lower.
    """

    def __init__(self, upstream: Upstream, ignored: frozenset[str]) -> None:
        self._upstream = upstream
        self._ignored = ignored
        self.courses: dict[str, bytes] = {}
        self._sequences: dict[str, int] = {}
        self._version: dict[str, int] = {}
        self._told: dict[str, dict[str, bytes]] = {}
        self._unnamed: dict[str, set[str]] = {}
        self.baselined = False
        self.silent = False
        self.events = 0

    def knows(self, course_id: str, body: bytes | None) -> None:
        """What a silent baseline took for known."""
        if body is None:
            self.courses.pop(course_id, None)
            return
        self.courses[course_id] = body
        self._told[course_id] = {ALL: body}
        self._unnamed[course_id] = set()
        self._version[course_id] = self._find(course_id, body, 0)

    def receive(self, event: StoredEvent) -> None:
        if not event.course_id:
            if event.type == "integration.baseline_completed":
                assert not self.baselined, "a second baseline"
                self.baselined = True
            return
        self.events += 1
        facts = msgspec.json.decode(event.facts)
        self._in_order(event)
        told = f"{event.type} {event.course_id} {facts['changed']} {facts['detected_by']}"
        if not self.baselined:
            assert not self.silent, f"{told}: during a silent baseline"
        assert facts["initial"] == (not self.baselined and event.type == "course.created"), told
        match event.type:
            case "course.created":
                self._create(event, facts, told)
            case "course.updated":
                self._update(event, facts, told)
            case _:
                self._delete(event, facts, told)

    def _in_order(self, event: StoredEvent) -> None:
        last = self._sequences.get(event.course_id)
        assert event.previous_sequence == last, f"{event.course_id}: {event}, after {last}"
        assert last is None or event.sequence > last
        self._sequences[event.course_id] = event.sequence

    def _create(self, event: StoredEvent, facts: dict[str, Any], told: str) -> None:
        course_id = event.course_id
        assert course_id not in self.courses, f"{told}: it is there already"
        if event.previous_sequence is not None:
            assert facts["reason"] == "restored", told
        assert event.course is not None
        self._version[course_id] = self._find(
            course_id, event.course, self._version.get(course_id, -1) + 1
        )
        self.courses[course_id] = event.course
        self._told[course_id] = {ALL: event.course}
        self._unnamed[course_id] = set()

    def _update(self, event: StoredEvent, facts: dict[str, Any], told: str) -> None:
        course_id, body = event.course_id, event.course
        assert course_id in self.courses, f"{told}: there is no such course"
        assert body is not None
        assert facts["changed"], told
        assert not self._ignored.intersection(facts["changed"]), told
        self._version[course_id] = self._find(course_id, body, self._version[course_id])
        # What was withheld came in the record of another event, and may have changed again.
        unnamed = self._unnamed[course_id] | differing(self.courses[course_id], body)
        for path in facts["changed"]:
            assert path in unnamed, f"{told}: {path} was told already"
            self._told[course_id][path] = body
        self._unnamed[course_id] = unnamed - {*facts["changed"]}
        self.courses[course_id] = body

    def _delete(self, event: StoredEvent, facts: dict[str, Any], told: str) -> None:
        course_id = event.course_id
        assert course_id in self.courses, f"{told}: there is no such course"
        assert event.course is None
        self._version[course_id] = self._find(course_id, None, self._version[course_id])
        del self.courses[course_id]
        del self._told[course_id]

    def _find(self, course_id: str, body: bytes | None, start: int) -> int:
        """The number, from `start` on, of the version that a body is of."""
        versions = self._upstream.versions[course_id]
        for number in range(start, len(versions)):
            if versions[number] == body:
                return number
        older = body in versions
        raise AssertionError(
            f"{course_id}: {'an older version' if older else 'never was like this'}: {body!r}"
        )

    def unannounced(self, course_id: str, body: bytes) -> set[str]:
        """The paths whose present content no event has named, though it may have shown it."""
        told = self._told[course_id]
        unannounced = differing(told[ALL], body) - told.keys()
        unannounced |= {path for path in told if path and path in differing(told[path], body)}
        return unannounced - self._ignored

    def is_at(self, course_id: str, start: int) -> bool:
        """Whether what it holds of a course is one of the versions from `start` on."""
        mine = self.courses.get(course_id)
        return any(
            same(mine, version, self._ignored)
            for version in self._upstream.versions[course_id][start:]
        )


def same(one: bytes | None, other: bytes | None, ignored: frozenset[str]) -> bool:
    """Whether two records say the same, or neither is there."""
    if one is None or other is None:
        return one is other
    return not differing(one, other) - ignored
