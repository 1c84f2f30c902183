"""Carries out the decision about held changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from service.clock import now_ms
from service.domain.courses.change import Judgement, Verdict, judge_absence
from service.domain.courses.fingerprint import unpack
from service.domain.polling.id_requests import MOST_IDS, can_be_asked
from service.domain.polling.integration import Integration, PollingState
from service.domain.polling.observations import Reason
from service.domain.polling.progress import with_unconfirmed
from service.domain.polling.triage import Mark
from service.domain.review.guards import Withheld, accepted, stated_deletion
from service.storage.polling.catalogue import Catalogue
from service.storage.polling.reviews import Reviews
from workers.polling.commit import Committer, Portion
from workers.polling.course_lookup import CourseLookup, LookupResult
from workers.polling.turn_budget import Turn

CONTROLS = 3  # live courses requested beside those that may be deleted
CANDIDATES = 20  # courses from which the controls are chosen
SEARCHED_AT_ONCE = 1_000  # courses examined together if these are not enough

DETECTED_BY = "review"

# The part of a batch to commit, and why some deletions were not confirmed.
_Outcome = tuple[Portion, Reason | None, int]


class Reviewer:
    """Carries out the decision on one integration's held changes, before its poll continues."""

    def __init__(
        self,
        catalogue: Catalogue,
        reviews: Reviews,
        integration: Integration,
        state: PollingState,
        committer: Committer,
        lookup: CourseLookup,
        turn: Turn,
    ) -> None:
        self._catalogue = catalogue
        self._reviews = reviews
        self._integration = integration
        self._state = state
        self._committer = committer
        self._lookup = lookup
        self._turn = turn
        self._rare: list[str] | None = None

    async def carry_out(self) -> None:
        """Publishes or accepts all decided changes, in batches, so that it can be interrupted."""
        if self._state.decision is None:
            return
        outcome_of = self._publish if self._state.decision == "publish" else self._accept
        while batch := await self._reviews.some_decided(
            self._integration.id, self._state.epoch, MOST_IDS - CONTROLS
        ):
            await self._turn.check(now_ms())
            portion, reason, count = await outcome_of(batch)
            planned = with_unconfirmed(self._committer.progress, reason, count)
            await self._committer.commit(portion, planned)

    async def _accept(self, batch: Mapping[str, Withheld]) -> _Outcome:
        """Records the held changes without events. The next full poll at the latest finds a course
        that has changed since."""
        live = await self._catalogue.live_among(
            self._integration.id, self._state.epoch, list(batch)
        )
        judged = [
            Judgement(
                course_id=course_id,
                verdict=Verdict.RECORDED,
                known=known,
                fingerprint=accepted(known, batch[course_id]),
            )
            for course_id, known in live.items()
        ]
        return Portion(judged=judged, marks=_done(batch)), None, 0

    async def _publish(self, batch: Mapping[str, Withheld]) -> _Outcome:
        """Requests as many of the courses again as fit into one request, and commits their present
        state. A deletion that cannot be confirmed is held again."""
        request = await self._lookup.request(list(batch), await self._controls())
        if request is None:
            return await self._publish_unasked(batch)
        found = await self._lookup.ask(request)
        batch = {course_id: batch[course_id] for course_id in request.course_ids}
        judged = list(found.judged)
        marks = _done(batch)
        lacking = _lacking(found, request.controls)
        unproven = 0
        for course_id, packed in found.missing.items():
            if batch[course_id].kind == "update":
                continue  # a full poll decides whether it is deleted
            if lacking is None:
                judged.append(judge_absence(course_id, unpack(packed)))
            else:
                marks.append(_held_again(course_id, batch))
                unproven += 1
        if lacking is None and (doubtful := [one for one in found.doubtful if _gone(batch[one])]):
            marks += [_held_again(one, batch) for one in doubtful]
            lacking, unproven = "unreadable", len(doubtful)
        opening = {"deleted": unproven, "changed_counts": {}}
        portion = Portion(judged=judged, marks=marks, opening=opening, detected_by=DETECTED_BY)
        return portion, lacking, unproven

    async def _publish_unasked(self, batch: Mapping[str, Withheld]) -> _Outcome:
        """Handles courses that cannot be requested: deletions that the upstream has stated itself
        are committed, absences are held again, and updates are left to the next full poll."""
        live = await self._catalogue.live_among(
            self._integration.id, self._state.epoch, list(batch)
        )
        judged = [
            stated_deletion(course_id, known, batch[course_id])
            for course_id, known in live.items()
            if batch[course_id].kind == "tombstone"
        ]
        unproven = [one for one in live if batch[one].kind == "absence"]
        marks = [*_done(batch), *(_held_again(one, batch) for one in unproven)]
        opening = {"deleted": len(unproven), "changed_counts": {}}
        portion = Portion(judged=judged, marks=marks, opening=opening, detected_by=DETECTED_BY)
        return portion, "cannot_be_asked", len(unproven)

    async def _controls(self) -> list[str]:
        integration_id, epoch = self._integration.id, self._state.epoch
        live = await self._catalogue.any_live(integration_id, epoch, CANDIDATES)
        # Courses that fit any list come first.
        controls = sorted(await self._undecided(live), key=can_be_asked, reverse=True)
        if not controls:
            # If hardly any course is left, the sample may be empty: then all are examined.
            if self._rare is None:
                self._rare = await self._search()
            controls = self._rare
        return controls[:CONTROLS]

    async def _search(self) -> list[str]:
        found: list[str] = []
        some: list[str] = []
        async for course_id in self._catalogue.live(self._integration.id, self._state.epoch):
            some.append(course_id)
            if len(some) == SEARCHED_AT_ONCE:
                found += await self._undecided(some)
                some = []
            if len(found) >= CONTROLS:
                return found
        return found + await self._undecided(some)

    async def _undecided(self, course_ids: Sequence[str]) -> list[str]:
        decided = await self._reviews.decided_among(
            self._integration.id, self._state.epoch, course_ids
        )
        return [course_id for course_id in course_ids if course_id not in decided]


def _lacking(found: LookupResult, controls: Sequence[str]) -> Reason | None:
    """Why missing courses of a response are not proven to be deleted; None if they are. A control
    that was deleted since comes back as deleted."""
    if found.whole and found.controls_live and found.returned.issuperset(controls):
        return None
    return found.lacking or "control_missing"


def _held_again(course_id: str, batch: Mapping[str, Withheld]) -> Mark:
    return Mark(course_id, "hold", batch[course_id].pack())


def _gone(withheld: Withheld) -> bool:
    return withheld.kind != "update"


def _done(batch: Mapping[str, Withheld]) -> list[Mark]:
    return [Mark(course_id, "decided") for course_id in batch]
