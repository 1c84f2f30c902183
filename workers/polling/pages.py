"""Reads the pages of a poll and commits their changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from service.clients.upstream import Page, PageQuery
from service.clock import now_ms
from service.domain.courses.change import Judgement
from service.domain.errors import CoursesDifferError, UpstreamPagingError
from service.domain.events.event import rfc3339
from service.domain.polling.id_requests import ends
from service.domain.polling.integration import Integration, PollingState
from service.domain.polling.page import (
    PageDigests,
    count_not_live,
    digest_page,
    live_courses,
)
from service.domain.polling.progress import (
    PageSummary,
    PollProgress,
    after_changes,
    after_page,
)
from service.domain.polling.seen_courses import seen_digests
from service.domain.polling.triage import Held, Triage, Triaged
from service.storage.polling.catalogue import Catalogue
from service.storage.polling.reviews import Reviews
from workers.polling.commit import Committer, Portion
from workers.polling.page_reading import JudgedPage, PageReader
from workers.polling.turn_budget import Turn

MAX_PAGES = 100_000  # pages of one poll: more means that the upstream's pages never end
LAPS_FROM_PAGES = 16  # at this page, and at each doubling, a full poll is checked for repetitions


class Pages:
    """The pages of one poll, during one turn. `held` counts the integration's held changes."""

    def __init__(
        self,
        catalogue: Catalogue,
        reviews: Reviews,
        integration: Integration,
        state: PollingState,
        committer: Committer,
        reader: PageReader,
        turn: Turn,
        held: Held,
    ) -> None:
        self._catalogue = catalogue
        self._reviews = reviews
        self._integration = integration
        self._state = state
        self._committer = committer
        self._reader = reader
        self._turn = turn
        self._held = held
        self._mostly_changed = False  # whether most records of the last page had changed

    async def take_next(self) -> None:
        """Reads one page and commits it. Raises UpstreamError, or TurnOverError if the turn is over
        or the credential's budget spent."""
        await self._turn.check(now_ms())
        progress = self._committer.progress
        if progress.pages >= MAX_PAGES:
            raise UpstreamPagingError(f"the upstream's pages never end: {MAX_PAGES} pages")
        await self._check_laps(progress)
        query = _query(progress)
        judged = await self._reader.begun(query)
        if judged is not None:
            _check_page(progress, judged.page)
            await self._commit_judged(judged)
            return
        page = await self._reader.fetch(query)
        _check_page(progress, page)
        digests = digest_page(page.results) if self._may_be_unchanged(progress) else None
        if digests is None:
            await self._commit_judged(await self._reader.judge(page))
            return
        try:
            await self._commit_unchanged(page, digests)
        except CoursesDifferError as error:
            await self._commit_judged(await self._reader.judge_differing(page, digests, error))

    def _may_be_unchanged(self, progress: PollProgress) -> bool:
        """Whether it is worth trying to commit a page without reading its records. No held or
        waiting changes may contradict them."""
        contradicted = self._state.held or progress.waiting
        return self._state.baselined and not contradicted and not self._mostly_changed

    async def _commit_unchanged(self, page: Page, digests: PageDigests) -> None:
        """Commits a page on which all courses are live and known by these digests. Raises
        CoursesDifferError."""
        course_ids = digests.course_ids
        portion = Portion(
            expected=digests,
            unchanged=len(course_ids),
            seen=self._seen(course_ids),
            is_page=True,
        )
        summary = _summary(page, live=ends(course_ids))
        await self._committer.commit(portion, self._after_page(summary))

    async def _commit_judged(self, judged: JudgedPage) -> None:
        """Commits a page of which some records may have changed. If most did, the next page is read
        meanwhile."""
        page, judgements, course_ids = judged.page, judged.judged, judged.course_ids()
        live = live_courses(judged.received, judged.stored, judgements)
        summary = _summary(
            page,
            live=[*ends(judged.unread), *live],
            not_live=count_not_live(judged.received, live, judgements),
            nameless=judged.nameless,
        )
        planned = self._after_page(summary)
        triaged = await self._triage(planned, judgements, course_ids, live)
        if self._state.baselined:
            planned = after_changes(
                planned, judgements, changed=triaged.changed, waiting=triaged.waiting
            )
        portion = Portion(
            judged=triaged.committed,
            marks=triaged.marks,
            unchanged=judged.unchanged + len(judged.unread),
            nameless=judged.nameless,
            seen=self._seen([*judged.unread, *(one.encode() for one in course_ids)]),
            is_page=True,
        )
        self._mostly_changed = judged.mostly_changed
        another = self._mostly_changed and planned.phase == "pages"
        if another and await self._turn.may_go_on(now_ms()):
            self._reader.begin(_query(planned), judged)
        await self._committer.commit(portion, planned)

    def _seen(self, course_ids: Iterable[bytes]) -> bytes:
        return b"" if self._committer.progress.kind == "delta" else seen_digests(course_ids)

    def _after_page(self, summary: PageSummary) -> PollProgress:
        return after_page(self._committer.progress, summary, now_ms())

    async def _check_laps(self, progress: PollProgress) -> None:
        """Raises UpstreamPagingError if a full poll gets the same courses repeatedly under new
        cursors: the stored digests would fill Redis."""
        pages = progress.pages
        if progress.kind != "full" or pages < LAPS_FROM_PAGES or pages & (pages - 1):
            return
        seen = await self._catalogue.seen(self._integration.id, progress.poll_id)
        # A poll that restarted because of its cursor has read every course twice.
        if len(seen) > 3 * seen.distinct:
            raise UpstreamPagingError(
                "the upstream's pages never end: the same courses were returned again"
            )

    async def _triage(
        self,
        planned: PollProgress,
        judged: list[Judgement],
        course_ids: Sequence[str],
        live: Sequence[str],
    ) -> Triaged:
        integration, state = self._integration, self._state
        if not state.baselined:  # these courses are new: they need no guard
            return Triaged(committed=judged, marks=[], waiting=planned.waiting, changed={})
        held = (
            await self._reviews.held(integration.id, planned.epoch, course_ids)
            if state.held
            else {}
        )
        triage = Triage(
            guards=integration.guards,
            kind=planned.kind,
            changed=planned.changed,
            waiting=planned.waiting,
            seen=planned.records,
            live=state.course_count,
            held=self._held,
            last=planned.phase != "pages",
        )
        return triage.decide(judged, live, held)


def _query(progress: PollProgress) -> PageQuery:
    since = progress.updated_after
    return PageQuery(
        page_size=progress.page_size,
        cursor=progress.cursor,
        updated_after=None if since is None else rfc3339(since),
        include_deleted=True,
    )


def _check_page(progress: PollProgress, page: Page) -> None:
    if page.next is not None and page.next in (progress.cursor, progress.landmark):
        raise UpstreamPagingError("the upstream repeats pages: a cursor was returned twice")


def _summary(
    page: Page, *, live: Sequence[str], not_live: int = 0, nameless: int = 0
) -> PageSummary:
    return PageSummary(
        next=page.next,
        date_ms=page.date_ms,
        age_ms=page.age_ms,
        records=len(page.results),
        live=live,
        not_live=not_live,
        nameless=nameless,
    )
