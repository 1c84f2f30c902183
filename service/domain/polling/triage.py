"""Decides which changes of a page are committed at once, and which wait or are held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from service.domain.courses.change import Judgement, Verdict
from service.domain.polling.integration import PollKind
from service.domain.review.guards import (
    Guards,
    Withheld,
    distrusted_paths,
    divide,
    sticky_paths,
    suspect_paths,
    too_many_deleted,
)


class Mark(msgspec.Struct, frozen=True):
    """A mark on a course whose change waits or is held. `wait`: until the poll's end; `absolve`: it
    no longer waits; `hold`: for a decision; `keep`: still held, in the upstream's present form;
    `release`: no longer held; `decided`: the decision is carried out; `forget`: a record that did
    not decode, of no live course, no longer exists. `withheld` is the packed change.
    """

    course_id: str
    operation: Literal["wait", "absolve", "hold", "keep", "release", "decided", "forget"]
    withheld: bytes | None = None


class Held(msgspec.Struct, frozen=True):
    """The number of held changes of an integration: deletions, and updates by path."""

    deleted: int = 0
    changed: Mapping[str, int] = {}


class Triaged(msgspec.Struct, frozen=True):
    """The decisions on a page: the changes to commit, the marks, and the poll's new counts."""

    committed: list[Judgement]
    marks: list[Mark]
    waiting: bool
    changed: dict[str, int]


class Triage(msgspec.Struct, frozen=True, kw_only=True):
    """The inputs of the decisions besides the page.

    `changed` (courses by changed path) and `waiting` (whether any change waits) are the poll's own
    counts so far, `seen` its records with this page, `live` the live courses; `held` counts the
    held changes. `last` means that no page follows.
    """

    guards: Guards
    kind: PollKind
    changed: Mapping[str, int]
    waiting: bool
    seen: int
    live: int
    held: Held
    last: bool

    def decide(
        self, judged: Sequence[Judgement], live: Iterable[str], held: Mapping[str, Withheld]
    ) -> Triaged:
        """Decides about a page. `live` are the ids of its live courses, `held` the held changes of
        its courses."""
        changed = self._count_changed(judged, held)
        suspects = self._suspects(changed)
        wait_deleted = self._deletions_wait(judged, held)
        committed: list[Judgement] = []
        marks: dict[str, Mark] = {}
        broken: set[str] = set()
        for one in judged:
            kept: Judgement | None = one
            mark: Mark | None = None
            match one.verdict:
                case Verdict.UPDATED:
                    kept, mark = _update(one, suspects, held)
                case Verdict.DELETED:
                    kept, mark = _deletion(one, held, wait=wait_deleted)
                case Verdict.QUARANTINED:
                    broken.add(one.course_id)
            if kept is not None:
                committed.append(kept)
            if mark is not None:
                marks[mark.course_id] = mark
        return Triaged(
            committed=committed,
            marks=[*self._contradicted(live, held, marks, broken), *marks.values()],
            waiting=self.waiting or any(mark.operation == "wait" for mark in marks.values()),
            changed=dict(changed),
        )

    @property
    def _whole(self) -> bool:
        """Whether the whole poll is known, so that no change needs to wait."""
        return self.last and not self.waiting

    def _count_changed(
        self, judged: Iterable[Judgement], held: Mapping[str, Withheld]
    ) -> Counter[str]:
        changed = Counter(self.changed)
        for one in judged:
            if one.verdict is Verdict.UPDATED:
                changed.update(set(one.changed) - _sticky(held, one))
        return changed

    def _suspects(self, changed: Counter[str]) -> frozenset[str]:
        """The paths whose changes wait."""
        if self._whole:
            return distrusted_paths(self.guards, changed + Counter(self.held.changed), self.live)
        return suspect_paths(
            self.guards, changed, self.held.changed, seen=self.seen, live=self.live
        )

    def _deletions_wait(self, judged: Iterable[Judgement], held: Mapping[str, Withheld]) -> bool:
        deleted = sum(
            one.verdict is Verdict.DELETED and one.course_id not in held for one in judged
        )
        return (
            not self._whole
            or self.kind == "full"  # absences are counted too
            or too_many_deleted(self.guards, self.held.deleted + deleted, self.live)
        )

    def _contradicted(
        self,
        live: Iterable[str],
        held: Mapping[str, Withheld],
        marks: Mapping[str, Mark],
        broken: Collection[str],
    ) -> Iterator[Mark]:
        """Ends the held and waiting changes of courses that are unchanged on this page."""
        for course_id in live:
            if course_id in broken:
                continue
            operation = marks[course_id].operation if course_id in marks else None
            if course_id in held and operation not in ("keep", "release"):
                yield Mark(course_id, "release")
            if self.waiting and operation != "wait":
                yield Mark(course_id, "absolve")


def _update(
    one: Judgement, suspects: frozenset[str], held: Mapping[str, Withheld]
) -> tuple[Judgement | None, Mark | None]:
    sticky = _sticky(held, one)
    kept, withheld = divide(one, suspects | sticky)
    if withheld is None:
        return kept, None
    return kept, Mark(one.course_id, "keep" if sticky else "wait", withheld.pack())


def _deletion(
    one: Judgement, held: Mapping[str, Withheld], *, wait: bool
) -> tuple[Judgement | None, Mark | None]:
    course_id, fingerprint = one.course_id, one.fingerprint
    already = held.get(course_id)
    tombstone = Withheld(
        kind="tombstone", raw=fingerprint.raw if fingerprint is not None else bytes(16)
    )
    if already is not None and already.kind != "update":
        return None, Mark(course_id, "keep", tombstone.pack())
    if wait:
        return None, Mark(course_id, "wait", tombstone.pack())
    return one, Mark(course_id, "release") if already is not None else None


def _sticky(held: Mapping[str, Withheld], one: Judgement) -> frozenset[str]:
    """The paths of an update that stay held; none for a held deletion, or without a held change."""
    withheld = held.get(one.course_id)
    return frozenset() if withheld is None else sticky_paths(one, withheld.paths)
