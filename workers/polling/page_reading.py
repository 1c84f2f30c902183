"""Reads the pages of a poll, and compares their records with the known state of their courses."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Self

import msgspec

from service.clients.upstream import Page, PageQuery
from service.clock import now_ms
from service.domain.courses.change import Judgement
from service.domain.courses.deletion_mark import judging_time
from service.domain.courses.received import ReceivedRecord, identify_records
from service.domain.errors import CoursesDifferError, UpstreamPageError
from service.domain.polling.integration import Integration
from service.domain.polling.page import PageDigests, judge_page
from service.domain.polling.progress import PAGE_SIZE
from service.storage.polling.catalogue import Catalogue
from workers.polling.page_fetch import Fetcher

_RECORDS_AT_ONCE = 25  # records that are compared before another task may run


class JudgedPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page with the judgements on its records.

    `received` are the records that were read, with their packed fingerprints `stored`. Of these,
    `unchanged` have no judgement, because nothing changed. `unread` are the ids of the page's other
    records, whose courses are live and unchanged; `nameless` records are only counted.
    """

    page: Page
    received: Sequence[ReceivedRecord]
    stored: Sequence[bytes | None]
    judged: list[Judgement]
    unchanged: int
    nameless: int
    unread: Sequence[bytes] = ()

    @property
    def mostly_changed(self) -> bool:
        """Whether most of the records changed."""
        return len(self.judged) > self.unchanged + len(self.unread)

    def course_ids(self) -> list[str]:
        """The ids of the records that were read."""
        return [one.course_id for one in self.received]


class PageReader:
    """Reads the pages of one poll, during one turn.

    It can read one page ahead, so that the worker fetches and compares a page while Redis writes
    the changes of the page before.
    """

    def __init__(
        self, catalogue: Catalogue, integration: Integration, epoch: str, fetcher: Fetcher
    ) -> None:
        self._catalogue = catalogue
        self._integration = integration
        self._epoch = epoch
        self._fetcher = fetcher
        self._ahead: _Ahead | None = None

    async def fetch(self, query: PageQuery) -> Page:
        """One page. Raises what `Fetcher.page` raises, and UpstreamPageError if the page is too
        long."""
        page = await self._fetcher.page(query)
        if len(page.results) > max(PAGE_SIZE, query.page_size):
            raise UpstreamPageError(
                f"the upstream sent {len(page.results)} records where {query.page_size} were "
                "asked for"
            )
        return page

    async def judge(self, page: Page) -> JudgedPage:
        """Compares all records of a page. Raises FingerprintVersionError."""
        return await self._judge(page, page.results)

    async def judge_differing(
        self, page: Page, digests: PageDigests, differing: CoursesDifferError
    ) -> JudgedPage:
        """Compares the records of a page in an unexpected state. The other records' courses are
        live and unchanged."""
        known = differing.known
        return await self._judge(
            page,
            [page.results[index] for index in known],
            digests=[digests.digests[index] for index in known],
            known={digests.course_ids[index]: packed for index, packed in known.items()},
            unread=[one for index, one in enumerate(digests.course_ids) if index not in known],
        )

    def begin(self, query: PageQuery, last: JudgedPage) -> None:
        """Begins to read the page that follows `last`, which is not committed yet."""
        task = asyncio.create_task(self._read(query))
        self._ahead = _Ahead(query, task, frozenset(last.course_ids()))

    async def begun(self, query: PageQuery) -> JudgedPage | None:
        """This page, if `begin` began to read it, otherwise None. Raises what `fetch` and `judge`
        raise. The page before must be committed by now."""
        if self._ahead is None or self._ahead.query != query:
            return None
        ahead = self._ahead
        read = await ahead.task
        self._ahead = None
        if ahead.uncommitted.isdisjoint(read.course_ids()):
            return read
        return await self.judge(read.page)  # it was compared with the state before that commit

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Ends what `begin` began."""
        if self._ahead is not None:
            self._ahead.task.cancel()
            await asyncio.gather(self._ahead.task, return_exceptions=True)

    async def _read(self, query: PageQuery) -> JudgedPage:
        return await self.judge(await self.fetch(query))

    async def _judge(
        self,
        page: Page,
        records: Sequence[msgspec.Raw],
        *,
        digests: Sequence[bytes] | None = None,
        known: Mapping[bytes, bytes | None] | None = None,
        unread: Sequence[bytes] = (),
    ) -> JudgedPage:
        """Compares records, with their digests and packed fingerprints by id as far as known; lets
        other tasks run in between."""
        received, nameless = identify_records(
            records, judging_time(now_ms(), page.date_ms), digests
        )
        stored = await self._fingerprints([one.course_id for one in received], known or {})
        judged: list[Judgement] = []
        unchanged = 0
        for start in range(0, len(received), _RECORDS_AT_ONCE):
            await asyncio.sleep(0)
            some = slice(start, start + _RECORDS_AT_ONCE)
            changes, same = judge_page(received[some], stored[some], self._integration.ignored)
            judged += changes
            unchanged += same
        return JudgedPage(
            page=page,
            received=received,
            stored=stored,
            judged=judged,
            unchanged=unchanged,
            nameless=nameless,
            unread=unread,
        )

    async def _fingerprints(
        self, course_ids: Sequence[str], known: Mapping[bytes, bytes | None]
    ) -> list[bytes | None]:
        """The packed fingerprints of some courses, of which some are `known`."""
        names = [one.encode() for one in course_ids]
        missing = [one for one, name in zip(course_ids, names, strict=True) if name not in known]
        found = await self._catalogue.read(self._integration.id, self._epoch, missing)
        together = {**known, **dict(zip(map(str.encode, missing), found, strict=True))}
        return [together[name] for name in names]


class _Ahead(msgspec.Struct, frozen=True):
    """A page that is read ahead. `uncommitted` are the ids that the commits of the page before may
    write."""

    query: PageQuery
    task: asyncio.Task[JudgedPage]
    uncommitted: frozenset[str]
