"""Reads the pages of a poll and commits their changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from service.clients.upstream import Page, PageQuery
from service.clock import now_ms
from service.domain.courses.change import Judgement
from service.domain.courses.deletion_mark import judging_time
from service.domain.courses.received import identify_records
from service.domain.errors import CoursesDifferError, UpstreamPageError, UpstreamPagingError
from service.domain.events.event import rfc3339
from service.domain.polling.id_requests import ends
from service.domain.polling.integration import Integration, PollingState
from service.domain.polling.page import (
    PageDigests,
    count_not_live,
    digest_page,
    judge_page,
    live_courses,
)
from service.domain.polling.progress import (
    PAGE_SIZE,
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
from workers.polling.page_fetch import Fetcher

MAX_PAGES = 100_000  # pages of one poll: more means that the upstream's pages never end
LAPS_FROM_PAGES = 16  # at this page, and at each doubling, a full poll is checked for repetitions


class _ToJudge(msgspec.Struct, frozen=True, kw_only=True):
    """The records of a page that may have changed, with their digests if known. `known` are packed
    fingerprints by id, as far as they were read; `unchanged` are the ids of the page's other
    records, whose courses are live and unchanged."""

    records: Sequence[msgspec.Raw]
    digests: Sequence[bytes] | None = None
    known: Mapping[bytes, bytes | None] = {}
    unchanged: Sequence[bytes] = ()


class Pages:
    """The pages of one poll, during one turn. `held` counts the integration's held changes."""

    def __init__(
        self,
        catalogue: Catalogue,
        reviews: Reviews,
        integration: Integration,
        state: PollingState,
        committer: Committer,
        fetcher: Fetcher,
        held: Held,
    ) -> None:
        self._catalogue = catalogue
        self._reviews = reviews
        self._integration = integration
        self._ignored = integration.ignored
        self._state = state
        self._committer = committer
        self._fetcher = fetcher
        self._held = held
        self._mostly_changed = False  # whether most records of the last page had changed

    async def take_next(self) -> None:
        """Reads one page and commits it. Raises UpstreamError, or TurnOverError if the budget is
        spent."""
        progress = self._committer.progress
        if progress.pages >= MAX_PAGES:
            raise UpstreamPagingError(f"the upstream's pages never end: {MAX_PAGES} pages")
        await self._check_laps(progress)
        page = await self._fetcher.page(_query(progress))
        _check_page(progress, page)
        digests = digest_page(page.results) if self._may_be_unchanged(progress) else None
        if digests is None:
            await self._commit_judged(page, _ToJudge(records=page.results))
            return
        try:
            await self._commit_unchanged(page, digests)
        except CoursesDifferError as error:
            await self._commit_judged(page, _differing(page, digests, error.known))

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

    async def _commit_judged(self, page: Page, rest: _ToJudge) -> None:
        """Commits a page of which some records may have changed."""
        judged_at = judging_time(now_ms(), page.date_ms)
        received, nameless = identify_records(rest.records, judged_at, rest.digests)
        course_ids = [one.course_id for one in received]
        stored = await self._fingerprints(course_ids, rest.known)
        judged, unchanged = judge_page(received, stored, self._ignored)
        self._mostly_changed = len(judged) > unchanged + len(rest.unchanged)
        live = live_courses(received, stored, judged)
        summary = _summary(
            page,
            live=[*ends(rest.unchanged), *live],
            not_live=count_not_live(received, live, judged),
            nameless=nameless,
        )
        planned = self._after_page(summary)
        triaged = await self._triage(planned, judged, course_ids, live)
        if self._state.baselined:
            planned = after_changes(
                planned, judged, changed=triaged.changed, waiting=triaged.waiting
            )
        portion = Portion(
            judged=triaged.committed,
            marks=triaged.marks,
            unchanged=unchanged + len(rest.unchanged),
            nameless=nameless,
            seen=self._seen([*rest.unchanged, *(one.encode() for one in course_ids)]),
            is_page=True,
        )
        await self._committer.commit(portion, planned)

    async def _fingerprints(
        self, course_ids: Sequence[str], known: Mapping[bytes, bytes | None]
    ) -> list[bytes | None]:
        """The packed fingerprints of some courses, of which some are `known`."""
        names = [one.encode() for one in course_ids]
        missing = [one for one, name in zip(course_ids, names, strict=True) if name not in known]
        found = await self._catalogue.read(
            self._integration.id, self._committer.progress.epoch, missing
        )
        together = {**known, **dict(zip(map(str.encode, missing), found, strict=True))}
        return [together[name] for name in names]

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
    if len(page.results) > max(PAGE_SIZE, progress.page_size):
        raise UpstreamPageError(
            f"the upstream sent {len(page.results)} records where {progress.page_size} were "
            "asked for"
        )


def _differing(page: Page, digests: PageDigests, known: Mapping[int, bytes | None]) -> _ToJudge:
    """The records of a page in an unexpected state, with their courses' known state."""
    return _ToJudge(
        records=[page.results[index] for index in known],
        digests=[digests.digests[index] for index in known],
        known={digests.course_ids[index]: packed for index, packed in known.items()},
        unchanged=[one for index, one in enumerate(digests.course_ids) if index not in known],
    )


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
