"""Asks the upstream for single courses by id, and judges what it says of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from service.clients.upstream import PageQuery
from service.clock import now_ms
from service.domain.courses.deletion_mark import told_time
from service.domain.courses.fingerprint import unpack
from service.domain.polling.id_requests import can_be_asked, fitting
from service.domain.polling.observations import Reason
from service.domain.polling.progress import identify_records, judge_page, unread
from service.domain.polling.triage import Judged
from service.storage.polling.catalogue import Catalogue
from workers.polling.page_fetch import Fetcher


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """One request: the courses it asks for, the `controls` beside them, which are known to be live
    and without which a missing course proves nothing, and the lists that it sends."""

    course_ids: tuple[str, ...]
    controls: tuple[str, ...]
    ids: tuple[str, ...] = ()
    remote_ids: tuple[str, ...] = ()


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the upstream said of some courses.

    `judged` are those it showed changed, `shown` all that it showed; `missing` those it surely
    did not show, with what is known of them; the answer is `whole` if it says so and every record
    of it can be told; `controls_live` is how many of the controls came back live, and `lacking`
    says why a missing course would not be proof, if it would not; `doubtful` are courses that
    were not shown and may be part of what cannot be read.
    """

    judged: list[Judged]
    shown: frozenset[str]
    missing: dict[str, bytes]
    whole: bool
    controls_live: int
    lacking: Reason | None
    doubtful: frozenset[str] = frozenset()


class Inquiry:
    """Asks about courses of one integration's epoch."""

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

    async def question(self, course_ids: Sequence[str], controls: Sequence[str]) -> Question | None:
        """One request for some of the courses, with those of the controls that can be asked for in
        the same way; None where none of the courses can be asked for.

        A course whose id no list carries is asked for by its remote id, and found by its id in the
        answer.
        """
        if carried := [one for one in course_ids if can_be_asked(one)]:
            beside = tuple(one for one in controls if can_be_asked(one))
            asked = fitting(carried, beside)
            return Question(course_ids=tuple(asked), controls=beside, ids=(*beside, *asked))
        remote = await self._remote_ids([*course_ids, *controls])
        beside = tuple(one for one in controls if one in remote)
        others = [one for one in course_ids if one in remote]
        if not others:
            return None
        named = [remote[one] for one in beside]
        asked = others[: len(fitting([remote[one] for one in others], named))]
        sent = dict.fromkeys((*named, *(remote[one] for one in asked)))
        return Question(course_ids=tuple(asked), controls=beside, remote_ids=tuple(sent))

    async def ask(self, question: Question) -> Answer:
        """Asks. Raises what `Fetcher.page` raises."""
        page = await self._fetcher.page(
            PageQuery(ids=question.ids, remote_ids=question.remote_ids, include_deleted=True)
        )
        course_ids, controls = question.course_ids, question.controls
        judged_at = told_time(now_ms(), page.date_ms)
        records_seen, nameless = identify_records(page.results, judged_at)
        shown = {seen_record.course_id: seen_record for seen_record in records_seen}
        # Read after the answer, so that nothing older is judged.
        stored = await self._catalogue.read(self._integration_id, self._epoch, course_ids)
        pairs = list(zip(course_ids, stored, strict=True))
        judged, _ = judge_page(
            [shown[course_id] for course_id, _ in pairs if course_id in shown],
            [packed for course_id, packed in pairs if course_id in shown],
            self._ignored,
            judged_at,
        )
        unreadable = unread(records_seen)
        doubtful = frozenset(one for one in course_ids if one not in shown and one in unreadable)
        whole = page.next is None and not nameless
        controls_live = sum(control in shown and shown[control].live for control in controls)
        return Answer(
            judged=judged,
            shown=frozenset(shown),
            missing={
                course_id: packed
                for course_id, packed in pairs
                if course_id not in shown
                and packed is not None
                and not unpack(packed).deleted
                and course_id not in doubtful
            },
            whole=whole,
            controls_live=controls_live,
            doubtful=doubtful,
            lacking=_lacking(whole=whole, live=controls_live, controls=len(controls)),
        )

    async def _remote_ids(self, course_ids: Sequence[str]) -> dict[str, str]:
        """The remote ids of those courses that can be asked for by them."""
        stored = await self._catalogue.read(self._integration_id, self._epoch, course_ids)
        found = {
            course_id: unpack(packed).remote_id or ""
            for course_id, packed in zip(course_ids, stored, strict=True)
            if packed is not None
        }
        return {course_id: one for course_id, one in found.items() if can_be_asked(one)}


def _lacking(*, whole: bool, live: int, controls: int) -> Reason | None:
    """Why an answer does not prove that what it lacks is gone; None if it does."""
    if not controls:
        return "no_control"
    if not whole:  # one cut short in the order of the poll would lack the last control
        return "cut_short"
    return "control_missing" if live < controls else None
