"""What a page of the upstream contains, compared with what is known of its courses."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import msgspec

from service.domain.courses.change import Judgement, Verdict, judge
from service.domain.courses.fingerprint import RAW, is_deleted, raw_digest, unpack
from service.domain.courses.received import ReceivedRecord

_ID_STARTS = b'{"id":"'
_ID_LOOKED_AT = 100  # bytes of a record in which its id is looked for


class PageDigests(msgspec.Struct, frozen=True):
    """A page before anything of it is decoded: the ids that its records seem to have, and the
    digests of their bytes.

    An id that is not what it seems does no harm: under it no fingerprint has that digest.
    """

    course_ids: list[bytes]
    digests: list[bytes]


def digest_page(records: Sequence[msgspec.Raw]) -> PageDigests | None:
    """The ids that the first bytes of all records seem to say; None if one does not begin with
    an id, or an id comes twice."""
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
    """The judgements on a page's records, except those whose bytes are known under the current
    version, which go no further than a comparison; and how many those were."""
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
    """The ids of a page's records of live courses. What is left of a deleted one when its date
    went too carries no tombstone either, but is not of a live course."""
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
    """How many records of a page are of courses that do not count as live after it: all except
    the `live` ones, of which some never decoded."""
    not_live = len(records) - len(live)
    live_ids: frozenset[str] | None = None
    for one in judged:
        match one.verdict:
            case Verdict.DELETED:  # until the end of the poll, at least
                not_live -= 1
            case Verdict.QUARANTINED:
                live_ids = live_ids or frozenset(live)
                not_live += (one.course_id in live_ids) - one.live_before
    return not_live
