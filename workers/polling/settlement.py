"""The end of a poll: finds what a full poll did not show, and settles the changes that waited."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec

from service.bootstrap import Services
from service.clock import now_ms
from service.domain.courses.change import Judgement, Verdict, judge_absence
from service.domain.courses.fingerprint import unpack
from service.domain.errors import UpstreamInputError
from service.domain.polling.id_requests import MOST_IDS
from service.domain.polling.integration import Integration
from service.domain.polling.observations import Reason
from service.domain.polling.progress import PollProgress, distinct, sorted_digests, was_seen
from service.domain.polling.triage import Judged, Mark
from service.domain.review.guards import (
    Withheld,
    distrusted_paths,
    divide,
    settled,
    too_many_deleted,
)
from service.logs import get_logger
from service.storage.polling.reviews import Review
from workers.polling.commit import Committer, Portion
from workers.polling.course_lookup import Answer, Inquiry
from workers.polling.turn_budget import Turn

FOUND_AT_ONCE = 1_000  # absences written down in one commit
ABSENT = Withheld(kind="absence")

_log = get_logger("poll")


class _Ruling(msgspec.Struct, frozen=True, kw_only=True):
    """What is believed of the changes that wait, and what is told if any of it is not."""

    hold_deleted: bool
    distrusted: frozenset[str]
    review: Review
    opening: Mapping[str, Any]


class _Found(msgspec.Struct, frozen=True, kw_only=True):
    """What came of asking for some courses: what is committed and held of them, those that there
    was no room to ask for, and the poll's unconfirmed changes by now."""

    judged: Sequence[Judged] = ()
    marks: Sequence[Mark] = ()
    later: frozenset[str] = frozenset()
    unconfirmed: dict[str, int]


class Settling:
    """Settles one poll."""

    def __init__(
        self,
        services: Services,
        integration: Integration,
        committer: Committer,
        inquiry: Inquiry,
        turn: Turn,
    ) -> None:
        self._services = services
        self._integration = integration
        self._committer = committer
        self._inquiry = inquiry
        self._turn = turn

    # --- what a full poll did not show -------------------------------------------------------

    async def find_absences(self) -> None:
        """Writes down the live courses that a complete full poll did not show. One that showed no
        live course at all says nothing about the others."""
        progress = self._committer.progress
        integration_id, epoch = self._integration.id, progress.epoch
        catalogue = self._services.catalogue
        if progress.controls:
            seen = sorted_digests(await catalogue.seen(integration_id, progress.poll_id))
            _, state = await self._services.integrations.get(integration_id)
            # Counted low rather than high, as others may be counted twice; then it is looked up.
            if distinct(seen) - progress.others < state.course_count:
                await self._look_for_absences(seen)
            gone = [
                course_id
                for course_id in await catalogue.quarantined_not_live(integration_id, epoch)
                if not was_seen(seen, course_id)
            ]
            forgotten = [Mark(course_id, "forget") for course_id in gone]
            if forgotten:
                await self._committer.commit(Portion(marks=forgotten))
            await self._committer.stash(phase="settling")
            return
        seen = sorted_digests(await catalogue.seen(integration_id, progress.poll_id))
        unseen = [len(absent) async for absent in self._absent(seen)]
        await self._committer.stash(
            phase="settling", unconfirmed=_counted(progress.unconfirmed, "empty", sum(unseen))
        )

    async def _look_for_absences(self, seen: array[int]) -> None:
        async for absent in self._absent(seen):
            await self._write_down(absent)

    async def _absent(self, seen: array[int]) -> AsyncIterator[list[str]]:
        """The live courses that were not seen, some at a time."""
        absent: list[str] = []
        async for course_id in self._services.catalogue.live(
            self._integration.id, self._committer.progress.epoch
        ):
            if not was_seen(seen, course_id):
                absent.append(course_id)
            if len(absent) == FOUND_AT_ONCE:
                yield absent
                absent = []
        if absent:
            yield absent

    async def _write_down(self, absent: list[str]) -> None:
        progress = self._committer.progress
        held = await self._services.reviews.held(self._integration.id, progress.epoch, absent)
        marks = [
            Mark(course_id, "wait", ABSENT)
            for course_id in absent
            if course_id not in held or held[course_id].kind == "update"
        ]
        waiting = progress.waiting or bool(marks)
        await self._committer.commit(Portion(marks=marks), waiting=waiting)

    # --- what waited ---------------------------------------------------------------------

    async def settle(self) -> None:
        """Commits or holds everything that waits, in batches, so that it can be broken off."""
        progress = self._committer.progress
        if not progress.waiting:
            return
        ruling = await self._rule(progress)
        while batch := await self._services.reviews.some_waiting(
            self._integration.id, progress.poll_id, MOST_IDS - len(progress.controls)
        ):
            await self._turn.check(now_ms())
            await self._settle_batch(progress, batch, ruling)
        await self._committer.stash(waiting=False)

    async def _rule(self, progress: PollProgress) -> _Ruling:
        services, guards = self._services, self._integration.guards
        waiting = await services.reviews.waiting_deletions(self._integration.id, progress.poll_id)
        review = await services.reviews.get(self._integration.id, progress.epoch)
        _, state = await services.integrations.get(self._integration.id)
        # Of the changes of this poll, some may not have looked suspicious and are out already.
        together = Counter(progress.changed) + Counter(review.held.changed)
        deleted = waiting + review.held.deleted
        distrusted = distrusted_paths(guards, together, state.course_count)
        # What nobody knows of yet needs no guard.
        hold_deleted = state.baselined and too_many_deleted(guards, deleted, state.course_count)
        return _Ruling(
            hold_deleted=hold_deleted,
            distrusted=distrusted if state.baselined else frozenset(),
            review=review,
            opening=_opening(deleted if hold_deleted else 0, together, distrusted),
        )

    async def _settle_batch(
        self, progress: PollProgress, batch: Mapping[str, Withheld], ruling: _Ruling
    ) -> None:
        judged: list[Judged] = []
        marks: list[Mark] = []
        asked: list[str] = []
        tombstones: dict[str, Withheld] = {}
        for course_id, withheld in batch.items():
            if withheld.kind == "update":
                if withheld.paths.keys() <= ruling.distrusted:
                    marks.append(Mark(course_id, "hold", withheld))
                else:
                    asked.append(course_id)
            elif ruling.hold_deleted:
                marks.append(Mark(course_id, "hold", withheld))
            elif withheld.kind == "tombstone":
                tombstones[course_id] = withheld
            else:
                asked.append(course_id)
        judged += await self._buried(progress, tombstones)
        found = await self._inquire(progress, asked, batch, ruling)
        judged += found.judged
        marks += found.marks
        kept = found.later | {mark.course_id for mark in marks}
        marks += [Mark(one, "absolve") for one in batch if one not in kept]
        if ruling.review.since is not None:
            # A course that is gone has no other change left to decide on.
            marks += [
                Mark(one.judgement.course_id, "release")
                for one in judged
                if one.judgement.verdict is Verdict.DELETED
            ]
        portion = Portion(judged=judged, marks=marks, opening=ruling.opening)
        await self._committer.commit(portion, unconfirmed=found.unconfirmed)

    async def _inquire(
        self,
        progress: PollProgress,
        asked: Sequence[str],
        batch: Mapping[str, Withheld],
        ruling: _Ruling,
    ) -> _Found:
        """Asks the upstream for as many of the courses as one request carries. A full poll goes on
        without an answer where the upstream refuses the question as such: the next full poll finds
        all of it again."""
        before = self._committer.progress.unconfirmed
        if not asked:
            return _Found(unconfirmed=before)
        question = await self._inquiry.question(asked, progress.controls)
        if question is None:
            return _Found(unconfirmed=_counted(before, "cannot_be_asked", len(asked)))
        later = frozenset(asked) - frozenset(question.course_ids)
        try:
            answer = await self._inquiry.ask(question)
        except UpstreamInputError as error:
            if progress.kind == "delta":
                raise
            _log.warning(
                "request by ids refused", integration=self._integration.id, reason=str(error)
            )
            count = len(question.course_ids)
            return _Found(later=later, unconfirmed=_counted(before, "refused", count))
        judged, marks = _sort(answer, batch, ruling)
        if answer.lacking is not None:
            lost = sum(one not in answer.shown for one in question.course_ids)
            before = _counted(before, answer.lacking, lost)
        elif answer.doubtful:
            before = _counted(before, "unreadable", len(answer.doubtful))
        return _Found(judged=judged, marks=marks, later=later, unconfirmed=before)

    async def _buried(
        self, progress: PollProgress, tombstones: Mapping[str, Withheld]
    ) -> list[Judged]:
        """The deletions that tombstones stand for."""
        live = await self._services.catalogue.live_among(
            self._integration.id, progress.epoch, list(tombstones)
        )
        return [
            Judged(
                Judgement(
                    course_id=course_id,
                    verdict=Verdict.DELETED,
                    evidence="tombstone",
                    fingerprint=settled(known, tombstones[course_id]),
                ),
                known,
            )
            for course_id, known in live.items()
        ]


def _counted(unconfirmed: Mapping[str, int], reason: Reason, count: int) -> dict[str, int]:
    """The changes that a poll could not confirm, with so many more."""
    return dict(Counter(unconfirmed) + Counter({reason: count}))


def _sort(
    answer: Answer, batch: Mapping[str, Withheld], ruling: _Ruling
) -> tuple[list[Judged], list[Mark]]:
    """What of an answer is committed, and what is held after all."""
    judged: list[Judged] = []
    marks: list[Mark] = []
    for one in answer.judged:
        judgement, known = one.judgement, one.known
        if judgement.verdict is Verdict.UPDATED and known is not None:
            kept, withheld = divide(judgement, known, ruling.distrusted)
            if kept is not None:
                judged.append(Judged(kept, known))
            if withheld is not None:
                marks.append(Mark(judgement.course_id, "hold", withheld))
        elif judgement.verdict is Verdict.DELETED and ruling.hold_deleted:
            raw = judgement.fingerprint.raw if judgement.fingerprint is not None else b""
            marks.append(Mark(judgement.course_id, "hold", Withheld(kind="tombstone", raw=raw)))
        else:
            judged.append(one)
    if answer.lacking is None:
        for course_id, packed in answer.missing.items():
            if batch[course_id].kind == "absence":
                known = unpack(packed)
                judged.append(Judged(judge_absence(course_id, known), known))
    return judged, marks


def _opening(
    deleted: int, changed: Mapping[str, int], distrusted: frozenset[str]
) -> dict[str, Any]:
    return {"deleted": deleted, "changed": {path: changed[path] for path in sorted(distrusted)}}
