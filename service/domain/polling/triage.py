"""Decides about the changes of a page: which are committed at once, which wait or are held."""

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
    """A course whose change waits or is held, or no longer does.

    `wait`: until the poll's end; `absolve`: no longer; `hold`: for a person to decide on;
    `keep`: still held, as the upstream has it now; `release`: no longer held; `decided`: done with
    what was decided; `forget`: a record that did not decode, of no live course, is there no more.
    `withheld` is the packed change.
    """

    course_id: str
    operation: Literal["wait", "absolve", "hold", "keep", "release", "decided", "forget"]
    withheld: bytes | None = None


class Held(msgspec.Struct, frozen=True):
    """How many changes of an integration are held: deletions, and updates by path."""

    deleted: int = 0
    changed: Mapping[str, int] = {}


class Triaged(msgspec.Struct, frozen=True):
    """What becomes of the changes of a page: what is committed, the marks, and the poll's counts
    from now on."""

    committed: list[Judgement]
    marks: list[Mark]
    waiting: bool
    changed: dict[str, int]


class Triage(msgspec.Struct, frozen=True, kw_only=True):
    """What the decisions about a page depend on besides the page.

    `changed` (courses by changed path) and `waiting` (whether any change waits) are the poll's
    own counts so far, `seen` its records with this page, `live` the live courses; `held`
    counts what is held. `last` says that nothing follows this page.
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
        """Whether the poll can be judged as a whole: nothing need wait in it."""
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
            or self.kind == "full"  # absences count along
            or too_many_deleted(self.guards, self.held.deleted + deleted, self.live)
        )

    def _contradicted(
        self,
        live: Iterable[str],
        held: Mapping[str, Withheld],
        marks: Mapping[str, Mark],
        broken: Collection[str],
    ) -> Iterator[Mark]:
        """Ends what is held, or waits, of courses that are otherwise on this page."""
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
    """The paths of an update that stay held; none where a deletion is held, or nothing."""
    withheld = held.get(one.course_id)
    return frozenset() if withheld is None else sticky_paths(one, withheld.paths)
