"""A page of the upstream, compared with the known state of its courses."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import msgspec

from service.domain.courses.change import Judgement, Verdict, judge
from service.domain.courses.fingerprint import RAW, is_deleted, raw_digest, unpack
from service.domain.courses.received import ReceivedRecord

_ID_STARTS = b'{"id":"'
_ID_LOOKED_AT = 100  # bytes of a record in which its id is looked for


class PageDigests(msgspec.Struct, frozen=True):
    """A page before decoding: the probable ids of its records, and the digests of their bytes.

    A wrong id does no harm, because no fingerprint under it has that digest.
    """

    course_ids: list[bytes]
    digests: list[bytes]


def digest_page(records: Sequence[msgspec.Raw]) -> PageDigests | None:
    """The probable ids in the first bytes of all records; None if one does not begin with an id, or
    an id occurs twice."""
    course_ids = []
    for record in records:
        head = bytes(memoryview(record)[:_ID_LOOKED_AT])
        end = head.find(b'"', len(_ID_STARTS))
        if end < 0 or not head.startswith(_ID_STARTS):
            return None
        course_ids.append(head[len(_ID_STARTS) : end])
    if len(set(course_ids)) < len(course_ids):
        return None
    return PageDigests(course_ids, [raw_digest(record) for record in records])


def judge_page(
    records: Sequence[ReceivedRecord], stored: Sequence[bytes | None], ignored: Collection[str]
) -> tuple[list[Judgement], int]:
    """The judgements on a page's records, except unchanged ones of the current version, and the
    number of the latter."""
    judged: list[Judgement] = []
    unchanged = 0
    for received, packed in zip(records, stored, strict=True):
        if packed is not None and packed[RAW] == received.digest:
            unchanged += 1
            continue
        known = unpack(packed) if packed is not None else None
        judged.append(judge(received, known, ignored))
    return judged, unchanged


def live_courses(
    records: Sequence[ReceivedRecord],
    stored: Sequence[bytes | None],
    judged: Iterable[Judgement],
) -> list[str]:
    """The ids of a page's records of live courses.

    The remainder of a deleted course whose date was removed has no tombstone either, but does not
    belong to a live course.
    """
    recorded = {one.course_id for one in judged if one.verdict is Verdict.RECORDED}
    return [
        received.course_id
        for received, packed in zip(records, stored, strict=True)
        if received.live
        and received.course_id not in recorded
        and (packed is None or not is_deleted(packed) or packed[RAW] != received.digest)
    ]


def count_not_live(
    records: Sequence[ReceivedRecord], live: Sequence[str], judged: Iterable[Judgement]
) -> int:
    """The number of a page's records whose courses are not live after it: all except the `live`
    ones, some of which never decoded."""
    not_live = len(records) - len(live)
    live_ids: frozenset[str] | None = None
    for one in judged:
        match one.verdict:
            case Verdict.DELETED:  # at least until the end of the poll
                not_live -= 1
            case Verdict.QUARANTINED:
                live_ids = live_ids or frozenset(live)
                not_live += (one.course_id in live_ids) - one.live_before
    return not_live
