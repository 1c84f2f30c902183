"""Sorts what a page showed: what is committed at once, and what waits or is held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Literal

import msgspec

from service.domain.courses.change import Judgement, Verdict
from service.domain.courses.fingerprint import Fingerprint
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


class Judged(msgspec.Struct, frozen=True):
    """The judgement on one course, and what was known of it before."""

    judgement: Judgement
    known: Fingerprint | None

    @property
    def live_before(self) -> bool:
        """Whether the course counted as live."""
        return self.known is not None and not self.known.deleted


class Mark(msgspec.Struct, frozen=True):
    """A course whose change waits or is held, or no longer does.

    `wait`: until the poll's end; `absolve`: no longer; `hold`: for a person to decide on;
    `keep`: still held, as it is shown now; `release`: no longer held; `decided`: done with
    what was decided; `forget`: a record that did not decode, of no live course, is there no more.
    """

    course_id: str
    operation: Literal["wait", "absolve", "hold", "keep", "release", "decided", "forget"]
    withheld: Withheld | None = None


class Held(msgspec.Struct, frozen=True):
    """How many changes of an integration are held: deletions, and updates by path."""

    deleted: int = 0
    changed: Mapping[str, int] = {}


class Sifted(msgspec.Struct, frozen=True):
    """What comes of a page: what flows, marks, and the poll's tallies from now on."""

    flowing: list[Judged]
    marks: list[Mark]
    waiting: bool
    changed: dict[str, int]


class Sieve(msgspec.Struct, frozen=True, kw_only=True):
    """What the sorting of a page depends on besides the page.

    `changed` (courses by changed path) and `waiting` (whether any change waits) are the poll's
    own tallies so far, `seen` its records with this page, `live` the live courses; `held`
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

    def sift(
        self, page: Iterable[Judged], shown: Iterable[str], held: Mapping[str, Withheld]
    ) -> Sifted:
        """Sorts a page. `shown` are the ids of all its records that carry no tombstone, `held`
        the held changes of its courses."""
        page = list(page)
        changed = Counter(self.changed)
        for one in page:
            if one.judgement.verdict is Verdict.UPDATED:
                changed.update(set(one.judgement.changed) - _sticky(held, one))
        # A poll without anything behind it can be judged as a whole, and nothing need wait.
        whole = self.last and not self.waiting
        suspects = (
            distrusted_paths(self.guards, changed + Counter(self.held.changed), self.live)
            if whole
            else suspect_paths(
                self.guards, changed, self.held.changed, seen=self.seen, live=self.live
            )
        )
        deleted = sum(
            one.judgement.verdict is Verdict.DELETED and one.judgement.course_id not in held
            for one in page
        )
        wait_deleted = (
            not whole
            or self.kind == "full"  # absences count along
            or too_many_deleted(self.guards, self.held.deleted + deleted, self.live)
        )
        flowing: list[Judged] = []
        marks: dict[str, Mark] = {}
        broken: set[str] = set()
        for one in page:
            kept: Judged | None = one
            mark: Mark | None = None
            match one.judgement.verdict:
                case Verdict.UPDATED:
                    kept, mark = _update(one, suspects, held)
                case Verdict.DELETED:
                    kept, mark = _deletion(one, held, wait=wait_deleted)
                case Verdict.QUARANTINED:
                    broken.add(one.judgement.course_id)
            if kept is not None:
                flowing.append(kept)
            if mark is not None:
                marks[mark.course_id] = mark
        return Sifted(
            flowing=flowing,
            marks=[*self._contradicted(shown, held, marks, broken), *marks.values()],
            waiting=self.waiting or any(mark.operation == "wait" for mark in marks.values()),
            changed=dict(changed),
        )

    def _contradicted(
        self,
        shown: Iterable[str],
        held: Mapping[str, Withheld],
        marks: Mapping[str, Mark],
        broken: Collection[str],
    ) -> Iterator[Mark]:
        """Ends what is held, or waits, of courses that this page shows otherwise."""
        for course_id in shown:
            if course_id in broken:
                continue
            operation = marks[course_id].operation if course_id in marks else None
            if course_id in held and operation not in ("keep", "release"):
                yield Mark(course_id, "release")
            if self.waiting and operation != "wait":
                yield Mark(course_id, "absolve")


def _update(
    one: Judged, suspects: frozenset[str], held: Mapping[str, Withheld]
) -> tuple[Judged | None, Mark | None]:
    judgement, known = one.judgement, one.known
    if known is None:
        return one, None
    sticky = _sticky(held, one)
    kept, withheld = divide(judgement, known, suspects | sticky)
    flowing = None if kept is None else Judged(kept, known)
    if withheld is None:
        return flowing, None
    operation: Literal["keep", "wait"] = "keep" if sticky else "wait"
    return flowing, Mark(judgement.course_id, operation, withheld)


def _deletion(
    one: Judged, held: Mapping[str, Withheld], *, wait: bool
) -> tuple[Judged | None, Mark | None]:
    course_id = one.judgement.course_id
    fingerprint = one.judgement.fingerprint
    already = held.get(course_id)
    tombstone = Withheld(
        kind="tombstone", raw=fingerprint.raw if fingerprint is not None else bytes(16)
    )
    if already is not None and already.kind != "update":
        return None, Mark(course_id, "keep", tombstone)
    if wait:
        return None, Mark(course_id, "wait", tombstone)
    return one, Mark(course_id, "release") if already is not None else None


def _sticky(held: Mapping[str, Withheld], one: Judged) -> frozenset[str]:
    """The paths of an update that stay held; none where a deletion is held, or nothing."""
    withheld = held.get(one.judgement.course_id)
    if withheld is None or one.known is None:
        return frozenset()
    return sticky_paths(one.judgement, one.known, withheld.paths)
