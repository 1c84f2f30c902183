"""Requests single courses from the upstream by id, and judges the response."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from service.clients.upstream import PageQuery
from service.clock import now_ms
from service.domain.courses.change import Judgement
from service.domain.courses.deletion_mark import judging_time
from service.domain.courses.fingerprint import is_deleted, unpack
from service.domain.courses.received import identify_records, unread
from service.domain.polling.id_requests import can_be_asked, fitting
from service.domain.polling.observations import Reason
from service.domain.polling.page import judge_page
from service.storage.polling.catalogue import Catalogue
from workers.polling.page_fetch import Fetcher


class LookupRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request: the courses to request, the `controls` beside them, which are known to be live
    and without which a missing course proves nothing, and the lists that it sends."""

    course_ids: tuple[str, ...]
    controls: tuple[str, ...]
    ids: tuple[str, ...] = ()
    remote_ids: tuple[str, ...] = ()


class LookupResult(msgspec.Struct, frozen=True, kw_only=True):
    """The upstream's response about some courses.

    `judged` are the returned courses with changes, `returned` all returned ones; `missing` those
    that were certainly not returned, with their known state; the response is `whole` if it has no
    further page and every record has an id; `controls_live` is the number of controls that were
    returned live, and `lacking` explains why a missing course would prove nothing, if so;
    `doubtful` are courses that were not returned and may be in unreadable records.
    """

    judged: list[Judgement]
    returned: frozenset[str]
    missing: dict[str, bytes]
    whole: bool
    controls_live: int
    lacking: Reason | None
    doubtful: frozenset[str] = frozenset()


class CourseLookup:
    """Requests courses of one integration's epoch."""

    def __init__(
        self,
        fetcher: Fetcher,
        catalogue: Catalogue,
        integration_id: str,
        epoch: str,
        ignored: Collection[str],
    ) -> None:
        self._fetcher = fetcher
        self._catalogue = catalogue
        self._integration_id = integration_id
        self._epoch = epoch
        self._ignored = ignored

    async def request(
        self, course_ids: Sequence[str], controls: Sequence[str]
    ) -> LookupRequest | None:
        """One request for some of the courses, with the controls that can be requested in the same
        way; None if none of the courses can be requested.

        A course whose id cannot be in a list is requested by its remote id, and found by its id in
        the response.
        """
        if carried := [one for one in course_ids if can_be_asked(one)]:
            beside = tuple(one for one in controls if can_be_asked(one))
            asked = fitting(carried, beside)
            return LookupRequest(course_ids=tuple(asked), controls=beside, ids=(*beside, *asked))
        remote = await self._remote_ids([*course_ids, *controls])
        beside = tuple(one for one in controls if one in remote)
        others = [one for one in course_ids if one in remote]
        if not others:
            return None
        named = [remote[one] for one in beside]
        asked = others[: len(fitting([remote[one] for one in others], named))]
        sent = dict.fromkeys((*named, *(remote[one] for one in asked)))
        return LookupRequest(course_ids=tuple(asked), controls=beside, remote_ids=tuple(sent))

    async def ask(self, request: LookupRequest) -> LookupResult:
        """Sends the request. Raises the errors of `Fetcher.page`."""
        page = await self._fetcher.page(
            PageQuery(ids=request.ids, remote_ids=request.remote_ids, include_deleted=True)
        )
        course_ids, controls = request.course_ids, request.controls
        received, nameless = identify_records(page.results, judging_time(now_ms(), page.date_ms))
        returned = {one.course_id: one for one in received}
        # Read after the response, so that outdated state is not judged.
        stored = await self._catalogue.read(self._integration_id, self._epoch, course_ids)
        known = dict(zip(course_ids, stored, strict=True))
        found = [one for one in course_ids if one in returned]
        judged, _ = judge_page(
            [returned[one] for one in found], [known[one] for one in found], self._ignored
        )
        unreadable = unread(received)
        doubtful = frozenset(one for one in course_ids if one not in returned and one in unreadable)
        whole = page.next is None and not nameless
        controls_live = sum(one in returned and returned[one].live for one in controls)
        return LookupResult(
            judged=judged,
            returned=frozenset(returned),
            missing={
                course_id: packed
                for course_id, packed in known.items()
                if course_id not in returned
                and packed is not None
                and not is_deleted(packed)
                and course_id not in doubtful
            },
            whole=whole,
            controls_live=controls_live,
            doubtful=doubtful,
            lacking=_lacking(whole=whole, live=controls_live, controls=len(controls)),
        )

    async def _remote_ids(self, course_ids: Sequence[str]) -> dict[str, str]:
        """The remote ids of the courses that can be requested by them."""
        stored = await self._catalogue.read(self._integration_id, self._epoch, course_ids)
        found = {
            course_id: unpack(packed).remote_id or ""
            for course_id, packed in zip(course_ids, stored, strict=True)
            if packed is not None
        }
        return {course_id: one for course_id, one in found.items() if can_be_asked(one)}


def _lacking(*, whole: bool, live: int, controls: int) -> Reason | None:
    """Why missing courses of a response are not proven to be deleted; None if they are."""
    if not controls:
        return "no_control"
    if not whole:  # a response cut off in the order of the poll would lack the last control
        return "cut_short"
    return "control_missing" if live < controls else None
