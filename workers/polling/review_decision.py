"""Carries out what was decided about held changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from service.bootstrap import Services
from service.clock import now_ms
from service.domain.courses.change import Judgement, Verdict, judge_absence
from service.domain.courses.fingerprint import unpack
from service.domain.polling.id_requests import MOST_IDS, can_be_asked
from service.domain.polling.integration import Integration, PollingState
from service.domain.polling.observations import Reason
from service.domain.polling.triage import Judged, Mark
from service.domain.review.guards import Withheld, settled
from workers.polling.commit import Committer, Portion
from workers.polling.course_lookup import Answer, Inquiry
from workers.polling.turn_budget import Turn

CONTROLS = 3  # live courses asked for beside those that may be gone
CANDIDATES = 20  # courses from which the controls are picked
SEARCHED_AT_ONCE = 1_000  # courses looked at together where these are not enough

DETECTED_BY = "review"

_Settled = tuple[Portion, Reason | None, int]  # and why so many deletions were not confirmed


class Reviewer:
    """Carries out the decision on one integration's held changes, before its poll goes on."""

    def __init__(
        self,
        services: Services,
        integration: Integration,
        state: PollingState,
        committer: Committer,
        inquiry: Inquiry,
        turn: Turn,
    ) -> None:
        self._services = services
        self._integration = integration
        self._state = state
        self._committer = committer
        self._inquiry = inquiry
        self._turn = turn
        self._rare: list[str] | None = None

    async def carry_out(self) -> None:
        """Applies or discards all that is decided, in batches, so that it can be broken off."""
        if self._state.decision is None:
            return
        settle = self._apply if self._state.decision == "apply" else self._discard
        while batch := await self._services.reviews.some_decided(
            self._integration.id, self._state.epoch, MOST_IDS - CONTROLS
        ):
            await self._turn.check(now_ms())
            portion, reason, count = await settle(batch)
            before = self._committer.progress.unconfirmed
            unconfirmed = Counter(before) + Counter({reason: count} if reason else {})
            await self._committer.commit(portion, unconfirmed=dict(unconfirmed))

    async def _discard(self, batch: Mapping[str, Withheld]) -> _Settled:
        """Takes the state that was shown for known. A course that has moved on since is shown
        again, by the next full poll at the latest."""
        live = await self._services.catalogue.live_among(
            self._integration.id, self._state.epoch, list(batch)
        )
        judged = [
            Judged(
                Judgement(
                    course_id=course_id,
                    verdict=Verdict.RECORDED,
                    fingerprint=settled(known, batch[course_id]),
                ),
                known,
            )
            for course_id, known in live.items()
        ]
        return Portion(judged=judged, marks=_done(batch)), None, 0

    async def _apply(self, batch: Mapping[str, Withheld]) -> _Settled:
        """Asks for as many of the courses again as one request carries, and commits what is shown
        now. A deletion that cannot be confirmed goes back to be reviewed."""
        question = await self._inquiry.question(list(batch), await self._controls())
        if question is None:
            return await self._apply_unasked(batch)
        answer = await self._inquiry.ask(question)
        batch = {course_id: batch[course_id] for course_id in question.course_ids}
        judged = list(answer.judged)
        marks = _done(batch)
        lacking = _lacking(answer, question.controls)
        unproven = 0
        for course_id, packed in answer.missing.items():
            if batch[course_id].kind == "update":
                continue  # whether it is gone is for a full poll to find out
            if lacking is None:
                known = unpack(packed)
                judged.append(Judged(judge_absence(course_id, known), known))
            else:
                marks.append(Mark(course_id, "hold", batch[course_id]))
                unproven += 1
        if lacking is None and (doubtful := [one for one in answer.doubtful if _gone(batch[one])]):
            marks += [Mark(one, "hold", batch[one]) for one in doubtful]
            lacking, unproven = "unreadable", len(doubtful)
        opening = {"deleted": unproven, "changed": {}}
        portion = Portion(judged=judged, marks=marks, opening=opening, detected_by=DETECTED_BY)
        return portion, lacking, unproven

    async def _apply_unasked(self, batch: Mapping[str, Withheld]) -> _Settled:
        """What is done about courses that the upstream cannot be asked for: deletions that it has
        stated itself are committed, absences go back to be reviewed, and updates are left for the
        next full poll to show."""
        live = await self._services.catalogue.live_among(
            self._integration.id, self._state.epoch, list(batch)
        )
        judged = [
            Judged(
                Judgement(
                    course_id=course_id,
                    verdict=Verdict.DELETED,
                    evidence="tombstone",
                    fingerprint=settled(known, batch[course_id]),
                ),
                known,
            )
            for course_id, known in live.items()
            if batch[course_id].kind == "tombstone"
        ]
        unproven = [one for one in live if batch[one].kind == "absence"]
        marks = [*_done(batch), *(Mark(one, "hold", batch[one]) for one in unproven)]
        opening = {"deleted": len(unproven), "changed": {}}
        portion = Portion(judged=judged, marks=marks, opening=opening, detected_by=DETECTED_BY)
        return portion, "cannot_be_asked", len(unproven)

    async def _controls(self) -> list[str]:
        integration_id, epoch = self._integration.id, self._state.epoch
        live = await self._services.catalogue.any_live(integration_id, epoch, CANDIDATES)
        # Those that any list carries come first.
        controls = sorted(await self._undecided(live), key=can_be_asked, reverse=True)
        if not controls:
            # Where hardly any course is left, a sample shows none: then all are gone through.
            if self._rare is None:
                self._rare = await self._search()
            controls = self._rare
        return controls[:CONTROLS]

    async def _search(self) -> list[str]:
        found: list[str] = []
        some: list[str] = []
        async for course_id in self._services.catalogue.live(
            self._integration.id, self._state.epoch
        ):
            some.append(course_id)
            if len(some) == SEARCHED_AT_ONCE:
                found += await self._undecided(some)
                some = []
            if len(found) >= CONTROLS:
                return found
        return found + await self._undecided(some)

    async def _undecided(self, course_ids: Sequence[str]) -> list[str]:
        decided = await self._services.reviews.decided_among(
            self._integration.id, self._state.epoch, course_ids
        )
        return [course_id for course_id in course_ids if course_id not in decided]


def _lacking(answer: Answer, controls: Sequence[str]) -> Reason | None:
    """Why an answer proves nothing of what it lacks; None if it does. A control that was deleted
    since is shown as that."""
    if answer.whole and answer.controls_live and answer.shown.issuperset(controls):
        return None
    return answer.lacking or "control_missing"


def _gone(withheld: Withheld) -> bool:
    return withheld.kind != "update"


def _done(batch: Mapping[str, Withheld]) -> list[Mark]:
    return [Mark(course_id, "decided") for course_id in batch]
