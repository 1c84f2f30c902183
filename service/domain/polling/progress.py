"""One poll's progress, and what it makes of a page: pure, so that a poll can be resumed."""

from __future__ import annotations

import re
import sys
from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from typing import Literal

import msgspec
from xxhash import xxh3_64_digest

from service.domain.courses.change import Verdict, judge
from service.domain.courses.deletion_mark import Deletion, deletion
from service.domain.courses.fingerprint import RAW, is_deleted, raw_digest, unpack
from service.domain.courses.record import Head
from service.domain.courses.salvage import UNREADABLE, member, text_of
from service.domain.polling.id_requests import can_be_asked
from service.domain.polling.integration import DELTA_OVERLAP_MS, PollKind, PollRecord
from service.domain.polling.triage import Judged

PAGE_SIZE = 250
MIN_PAGE_SIZE = 10
MIN_UNREADABLE_PAGE_SIZE = 1  # where a page arrives and cannot be read
FULL_PATIENCE_MS = 10 * 60_000  # of a full poll without a page, while deltas wait for it
LONGEST_ID_BYTES = 2_000  # of a course's id: a longer one fits into no URL, percent-encoded
RESUMABLE_MS = 30 * 60_000  # a broken-off poll is resumed if its last page is no older


class _Named(msgspec.Struct, frozen=True, gc=False):
    """A record of which nothing but the id can be read."""

    id: str


_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_decode_head = msgspec.json.Decoder(Head).decode
_decode_named = msgspec.json.Decoder(_Named).decode


class PollProgress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a poll stands after its last commit. Times are epoch ms.

    `updated_after` is where a delta begins (None for a full poll); `watermark` what completing
    the poll will set; `phase` what it is at: reading pages, looking for absences, or settling
    what waits; `step` counts commits, so that no two states of a poll are alike; `landmark` is
    a cursor passed earlier, to notice paging in circles; `live` counts records without a
    tombstone and `controls` are the ids of the first and the last of them; `others` counts
    records of courses that do not count as live; `changed` counts courses by changed path,
    and `waiting` says whether any change waits for the end; `slot` is the ms at which it is
    its turn to spend from the credential's budget; `skew_ms` how far the upstream's clock is
    ahead of ours; `error` what the last attempt at going on failed with; `cached_ms` the age of
    the first answer, if a cache gave it; `nameless` counts records without an id, `unconfirmed`
    changes that were not confirmed, by reason; `samples` are of the courses that changed, by path.
    """

    poll_id: str
    kind: PollKind
    epoch: str
    started_at: int
    updated_at: int
    requested_at: int | None = None
    watermark: int
    updated_after: int | None = None
    cursor: str | None = None
    landmark: str | None = None
    phase: Literal["pages", "absences", "settling"] = "pages"
    step: int = 0
    restarts: int = 0
    page_size: int = PAGE_SIZE
    pages: int = 0
    records: int = 0
    others: int = 0
    controls: tuple[str, ...] = ()
    changes: int = 0
    changed: dict[str, int] = {}
    waiting: bool = False
    verdicts: dict[str, int] = {}
    slot: int = 0
    skew_ms: int | None = None
    error: str | None = None
    cached_ms: int = 0
    nameless: int = 0
    unconfirmed: dict[str, int] = {}
    samples: dict[str, tuple[int, ...]] = {}

    def record(
        self,
        state: Literal["running", "completed", "failed"] = "running",
        *,
        finished_at: int | None = None,
        error: str | None = None,
    ) -> PollRecord:
        """The poll as listed."""
        return PollRecord(
            id=self.poll_id,
            kind=self.kind,
            state=state,
            requested_at=self.requested_at,
            started_at=self.started_at,
            finished_at=finished_at,
            pages=self.pages,
            records=self.records,
            verdicts=self.verdicts,
            changes=self.changes,
            error=self.error if state == "running" else error,
        )


def begin(
    poll_id: str, kind: PollKind, epoch: str, watermark: int | None, now_ms: int
) -> PollProgress:
    """A poll that has not asked for anything yet."""
    return PollProgress(
        poll_id=poll_id,
        kind=kind,
        epoch=epoch,
        started_at=now_ms,
        updated_at=now_ms,
        watermark=now_ms,
        updated_after=(watermark or 0) - DELTA_OVERLAP_MS if kind == "delta" else None,
    )


def resumable(progress: PollProgress, epoch: str, now_ms: int) -> bool:
    """Whether a poll found broken off may be taken up again."""
    return progress.epoch == epoch and now_ms - progress.updated_at <= RESUMABLE_MS


class SeenRecord(msgspec.Struct, frozen=True):
    """One record of a page: its id, whether it surely is of a course that is not deleted, its
    bytes' digest, and whether it is `broken`: no JSON."""

    course_id: str
    live: bool
    digest: bytes
    record: msgspec.Raw
    broken: bool = False


class PageDigests(msgspec.Struct, frozen=True):
    """What a page shows before anything of it is decoded: the ids that its records seem to
    have, and the digests of their bytes.

    An id that is not what it seems does no harm: under it no fingerprint has that digest.
    """

    course_ids: list[bytes]
    digests: list[bytes]


_ID_STARTS = b'{"id":"'
_ID_LOOKED_AT = 100  # bytes of a record in which its id is looked for


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


def identify_records(records: Iterable[msgspec.Raw], now_ms: int) -> tuple[list[SeenRecord], int]:
    """The records of a page that have an id, each id once (the last wins), and how many have
    none and can only be counted."""
    records_seen: dict[str, SeenRecord] = {}
    nameless = 0
    for record in records:
        found = _sighting(record, now_ms)
        before = records_seen.get(found.course_id)
        # A broken record may be more than the one whose id it shows.
        nameless += not found.course_id or (before is not None and before.broken)
        if found.course_id:
            records_seen[found.course_id] = found
    return list(records_seen.values()), nameless


def _sighting(record: msgspec.Raw, now_ms: int) -> SeenRecord:
    """One record; its id is empty if it has none that is usable."""
    digest = raw_digest(record)
    try:
        head = _decode_head(record)
    except UNREADABLE:
        # It cannot be judged, but it was seen: its course is not absent.
        try:
            return SeenRecord(_usable(_decode_named(record).id), False, digest, record)
        except UNREADABLE:
            named = _usable(text_of(member(bytes(record), "id")) or "")
            return SeenRecord(named, False, digest, record, broken=True)
    live = deletion(head.remote_deleted_at, now_ms) in (Deletion.NONE, Deletion.DUE)
    return SeenRecord(_usable(head.id), live, digest, record)


def _usable(course_id: str) -> str:
    if len(course_id) * 4 > LONGEST_ID_BYTES and len(course_id.encode()) > LONGEST_ID_BYTES:
        return ""
    return course_id


def unread(records_seen: Iterable[SeenRecord]) -> str:
    """The text of the broken records, unescaped. Each may be more than the one whose id it shows,
    because a quote too many hides where a record ends: a course that is named in here may have
    been shown."""
    text = " ".join(
        bytes(one.record).decode(errors="replace") for one in records_seen if one.broken
    )
    unescaped = _ESCAPE.sub(lambda found: found[2] or chr(int(found[1], 16)), text)
    return unescaped.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def judge_page(
    records_seen: Sequence[SeenRecord],
    stored: Sequence[bytes | None],
    ignored: Collection[str],
    now_ms: int,
) -> tuple[list[Judged], int]:
    """The judgements on a page's records, but for those whose bytes are known under the current
    version, which go no further than a comparison; and how many those were."""
    judged: list[Judged] = []
    unchanged = 0
    for seen_record, packed in zip(records_seen, stored, strict=True):
        if packed is not None and packed[RAW] == seen_record.digest:
            unchanged += 1
            continue
        known = unpack(packed) if packed is not None else None
        judged.append(
            Judged(judge(seen_record.course_id, seen_record.record, known, ignored, now_ms), known)
        )
    return judged, unchanged


def controls_after(controls: tuple[str, ...], live: Sequence[str]) -> tuple[str, ...]:
    """The first and the last live course of a poll that the upstream can be asked for, after a page
    with these. Where it cannot be asked for any, they still say that the poll showed live ones."""
    shown = [*controls, *live]
    usable = [one for one in shown if can_be_asked(one)] or shown
    return tuple(dict.fromkeys((*usable[:1], *usable[-1:])))


def shown_live(
    records_seen: Sequence[SeenRecord], stored: Sequence[bytes | None], judged: Iterable[Judged]
) -> list[str]:
    """The ids of a page's records that show their courses live. What is left of a deleted one
    when its date went too carries no tombstone either, but shows nothing live."""
    recorded = {
        one.judgement.course_id for one in judged if one.judgement.verdict is Verdict.RECORDED
    }
    return [
        seen_record.course_id
        for seen_record, packed in zip(records_seen, stored, strict=True)
        if seen_record.live
        and seen_record.course_id not in recorded
        and (packed is None or not is_deleted(packed) or packed[RAW] != seen_record.digest)
    ]


def count_others(
    records_seen: Sequence[SeenRecord], live: Sequence[str], judged: Iterable[Judged]
) -> int:
    """How many records of a page are of courses that do not count as live after it: all but
    those shown `live`, of which some never decoded."""
    others = len(records_seen) - len(live)
    shown: frozenset[str] | None = None
    for one in judged:
        match one.judgement.verdict:
            case Verdict.DELETED:  # until the end of the poll, at least
                others -= 1
            case Verdict.QUARANTINED:
                shown = shown or frozenset(live)
                others += (one.judgement.course_id in shown) - one.live_before
    return others


def seen_digest(course_id: bytes) -> bytes:
    """What a full poll keeps of an id it has seen; two that collide hide an absence, once in
    10^14 for a catalogue of 100,000."""
    return xxh3_64_digest(course_id)


def sorted_digests(stored: bytes) -> array[int]:
    """The digests kept of a full poll, sorted, 8 bytes each however many they are."""
    digests = array("Q", stored)
    return array("Q", sorted(digests))


def distinct(digests: array[int]) -> int:
    """How many different ones there are among sorted digests."""
    return sum(1 for _ in groupby(digests))


def was_seen(digests: array[int], course_id: str) -> bool:
    """Whether `digests`, sorted, hold that of `course_id`."""
    digest = int.from_bytes(seen_digest(course_id.encode()), sys.byteorder)
    slot = bisect_left(digests, digest)
    return slot < len(digests) and digests[slot] == digest
