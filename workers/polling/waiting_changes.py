"""Confirms the changes that waited for the end of a poll, and commits or holds them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from service.clock import now_ms
from service.domain.courses.change import Judgement, Verdict, judge_absence
from service.domain.courses.fingerprint import unpack
from service.domain.errors import UpstreamInputError
from service.domain.polling.id_requests import MOST_IDS
from service.domain.polling.integration import Integration
from service.domain.polling.progress import PollProgress, after_confirmation, with_unconfirmed
from service.domain.polling.triage import Mark
from service.domain.review.guards import (
    Exceeded,
    Withheld,
    divide,
    exceeded_limits,
    stated_deletion,
)
from service.logs import get_logger
from service.storage.polling.catalogue import Catalogue
from service.storage.polling.reviews import Review, Reviews
from service.storage.registry.integrations import IntegrationStore
from workers.polling.commit import Committer, Portion
from workers.polling.course_lookup import CourseLookup, LookupRequest, LookupResult
from workers.polling.turn_budget import Turn

_log = get_logger("poll")


class _Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The waiting changes that exceed limits, and the contents of the event if they open a
    review."""

    review: Review
    opening: Mapping[str, Any]
    exceeded: Sequence[Exceeded]

    @property
    def hold_deleted(self) -> bool:
        """Whether deletions exceed a limit."""
        return any(one.path is None for one in self.exceeded)

    @property
    def distrusted(self) -> frozenset[str]:
        """The paths whose changes exceed a limit."""
        return frozenset(one.path for one in self.exceeded if one.path is not None)


class _Confirmed(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a request for some courses: the changes to commit and to hold, those that did
    not fit into the request, and the poll's progress with unconfirmed ones."""

    judged: Sequence[Judgement] = ()
    marks: Sequence[Mark] = ()
    later: frozenset[str] = frozenset()
    planned: PollProgress


class _Batch:
    """Some of the waiting changes, grouped by the way to handle them."""

    def __init__(self, changes: Mapping[str, Withheld], limits: _Limits) -> None:
        self.changes = changes
        self.held: list[Mark] = []
        self.to_request: list[str] = []
        self.tombstones: dict[str, Withheld] = {}
        for course_id, withheld in changes.items():
            distrusted = (
                withheld.paths.keys() <= limits.distrusted
                if withheld.kind == "update"
                else limits.hold_deleted
            )
            if distrusted:
                self.held.append(Mark(course_id, "hold", withheld.pack()))
            elif withheld.kind == "tombstone":
                self.tombstones[course_id] = withheld
            else:
                self.to_request.append(course_id)


class WaitingChanges:
    """The waiting changes of one poll."""

    def __init__(
        self,
        integrations: IntegrationStore,
        catalogue: Catalogue,
        reviews: Reviews,
        integration: Integration,
        committer: Committer,
        lookup: CourseLookup,
        turn: Turn,
    ) -> None:
        self._integrations = integrations
        self._catalogue = catalogue
        self._reviews = reviews
        self._integration = integration
        self._committer = committer
        self._lookup = lookup
        self._turn = turn

    async def confirm(self) -> None:
        """Commits or holds all waiting changes, in batches, so that it can be interrupted."""
        progress = self._committer.progress
        if not progress.waiting:
            return
        limits = await self._limits(progress)
        while changes := await self._reviews.some_waiting(
            self._integration.id, progress.poll_id, MOST_IDS - len(progress.controls)
        ):
            await self._turn.check(now_ms())
            await self._confirm_batch(_Batch(changes, limits), limits)
        await self._committer.stash(after_confirmation(self._committer.progress))

    async def _limits(self, progress: PollProgress) -> _Limits:
        guards, integration_id = self._integration.guards, self._integration.id
        waiting = await self._reviews.waiting_deletions(integration_id, progress.poll_id)
        review = await self._reviews.get(integration_id, progress.epoch)
        _, state = await self._integrations.get(integration_id)
        # Some changes of this poll may not have looked suspicious and are committed already.
        changed = Counter(progress.changed) + Counter(review.held.changed)
        deleted = waiting + review.held.deleted
        # The courses of a baseline are new: they need no guard.
        exceeded = (
            exceeded_limits(guards, deleted, changed, state.course_count) if state.baselined else []
        )
        return _Limits(
            review=review,
            opening={
                "deleted": next((one.count for one in exceeded if one.path is None), 0),
                "changed_counts": {one.path: one.count for one in exceeded if one.path is not None},
            },
            exceeded=exceeded,
        )

    async def _confirm_batch(self, batch: _Batch, limits: _Limits) -> None:
        stated = await self._stated_deletions(batch.tombstones)
        confirmed = await self._request(batch, limits)
        judged = [*stated, *confirmed.judged]
        marks = [*batch.held, *confirmed.marks]
        kept = confirmed.later | {mark.course_id for mark in marks}
        marks += [Mark(one, "absolve") for one in batch.changes if one not in kept]
        if limits.review.since is not None:
            # A deleted course has no other change to decide on.
            marks += [
                Mark(one.course_id, "release") for one in judged if one.verdict is Verdict.DELETED
            ]
        portion = Portion(
            judged=judged, marks=marks, opening=limits.opening, exceeded=limits.exceeded
        )
        await self._committer.commit(portion, confirmed.planned)

    async def _stated_deletions(self, tombstones: Mapping[str, Withheld]) -> list[Judgement]:
        live = await self._catalogue.live_among(
            self._integration.id, self._committer.progress.epoch, list(tombstones)
        )
        return [
            stated_deletion(course_id, known, tombstones[course_id])
            for course_id, known in live.items()
        ]

    async def _request(self, batch: _Batch, limits: _Limits) -> _Confirmed:
        """Requests as many of the courses as fit into one request. If the upstream refuses the
        request itself, a full poll continues without a response: the next full poll finds all of
        the changes again."""
        progress = self._committer.progress
        if not batch.to_request:
            return _Confirmed(planned=progress)
        request = await self._lookup.request(batch.to_request, progress.controls)
        if request is None:
            count = len(batch.to_request)
            return _Confirmed(planned=with_unconfirmed(progress, "cannot_be_asked", count))
        later = frozenset(batch.to_request) - frozenset(request.course_ids)
        try:
            found = await self._lookup.ask(request)
        except UpstreamInputError as error:
            if progress.kind == "delta":
                raise
            _log.warning(
                "upstream refused the request by ids",
                integration=self._integration.id,
                reason=str(error),
            )
            planned = with_unconfirmed(progress, "refused", len(request.course_ids))
            return _Confirmed(later=later, planned=planned)
        judged, marks = divide_found(found, batch.changes, limits)
        planned = _after_lookup(progress, request, found)
        return _Confirmed(judged=judged, marks=marks, later=later, planned=planned)


def _after_lookup(
    progress: PollProgress, request: LookupRequest, found: LookupResult
) -> PollProgress:
    if found.lacking is not None:
        lost = sum(one not in found.returned for one in request.course_ids)
        return with_unconfirmed(progress, found.lacking, lost)
    return with_unconfirmed(progress, "unreadable", len(found.doubtful))


def divide_found(
    found: LookupResult, changes: Mapping[str, Withheld], limits: _Limits
) -> tuple[list[Judgement], list[Mark]]:
    """The changes of a response to commit, and the ones to hold."""
    judged: list[Judgement] = []
    marks: list[Mark] = []
    for one in found.judged:
        if one.verdict is Verdict.UPDATED:
            kept, withheld = divide(one, limits.distrusted)
            if kept is not None:
                judged.append(kept)
            if withheld is not None:
                marks.append(Mark(one.course_id, "hold", withheld.pack()))
        elif one.verdict is Verdict.DELETED and limits.hold_deleted:
            raw = one.fingerprint.raw if one.fingerprint is not None else b""
            tombstone = Withheld(kind="tombstone", raw=raw)
            marks.append(Mark(one.course_id, "hold", tombstone.pack()))
        else:
            judged.append(one)
    if found.lacking is None:
        judged += [
            judge_absence(course_id, unpack(packed))
            for course_id, packed in found.missing.items()
            if changes[course_id].kind == "absence"
        ]
    return judged, marks
