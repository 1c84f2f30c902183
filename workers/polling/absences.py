"""Finds the courses that a full poll has not read."""

from __future__ import annotations

from collections.abc import AsyncIterator

from service.domain.polling.integration import Integration
from service.domain.polling.progress import after_absences, with_unconfirmed, with_waiting
from service.domain.polling.seen_courses import SeenCourses
from service.domain.polling.triage import Mark
from service.domain.review.guards import Withheld
from service.storage.polling.catalogue import Catalogue
from service.storage.polling.reviews import Reviews
from service.storage.registry.integrations import IntegrationStore
from workers.polling.commit import Committer, Portion

FOUND_AT_ONCE = 1_000  # absences stored in one commit
ABSENT = Withheld(kind="absence").pack()


class AbsenceSearch:
    """Compares the catalogue with the courses that one full poll has read."""

    def __init__(
        self,
        integrations: IntegrationStore,
        catalogue: Catalogue,
        reviews: Reviews,
        integration: Integration,
        committer: Committer,
    ) -> None:
        self._integrations = integrations
        self._catalogue = catalogue
        self._reviews = reviews
        self._integration_id = integration.id
        self._committer = committer

    async def carry_out(self) -> None:
        """Stores the live courses that a complete full poll has not read as absences. A poll that
        read no live course proves nothing about the others."""
        progress = self._committer.progress
        seen = await self._catalogue.seen(self._integration_id, progress.poll_id)
        unconfirmed = 0
        if progress.controls:
            _, state = await self._integrations.get(self._integration_id)
            # A low estimate, because some may be counted twice; then the catalogue is read.
            if seen.distinct - progress.not_live < state.course_count:
                await self.write_down(seen)
            await self._forget_quarantined(seen)
        else:
            unconfirmed = sum([len(absent) async for absent in self._absent(seen)])
        progress = with_unconfirmed(self._committer.progress, "empty", unconfirmed)
        await self._committer.stash(after_absences(progress))

    async def write_down(self, seen: SeenCourses) -> None:
        """Makes the absences wait for their confirmation."""
        async for absent in self._absent(seen):
            progress = self._committer.progress
            held = await self._reviews.held(self._integration_id, progress.epoch, absent)
            marks = [
                Mark(course_id, "wait", ABSENT)
                for course_id in absent
                if course_id not in held or held[course_id].kind == "update"
            ]
            planned = with_waiting(progress) if marks else progress
            await self._committer.commit(Portion(marks=marks), planned)

    async def _absent(self, seen: SeenCourses) -> AsyncIterator[list[str]]:
        """The live courses that were not read, in batches."""
        absent: list[str] = []
        epoch = self._committer.progress.epoch
        async for course_id in self._catalogue.live(self._integration_id, epoch):
            if course_id not in seen:
                absent.append(course_id)
            if len(absent) == FOUND_AT_ONCE:
                yield absent
                absent = []
        if absent:
            yield absent

    async def _forget_quarantined(self, seen: SeenCourses) -> None:
        """Removes records that did not decode, of no live course, that no longer exist."""
        progress = self._committer.progress
        quarantined = await self._catalogue.quarantined_not_live(
            self._integration_id, progress.epoch
        )
        gone = [one for one in quarantined if one not in seen]
        if gone:
            marks = [Mark(course_id, "forget") for course_id in gone]
            await self._committer.commit(Portion(marks=marks), progress)
