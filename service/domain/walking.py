"""One walk's progress, and what it makes of a page: pure, so that a walk can be resumed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

import msgspec
from xxhash import xxh3_64_digest

from service.domain.course import Head
from service.domain.diff import UNREADABLE, Judgement, Verdict, judge
from service.domain.fingerprint import RAW, raw_digest, unpack
from service.domain.integrations import DELTA_OVERLAP_MS, WalkKind, WalkRecord

PAGE_SIZE = 250
MIN_PAGE_SIZE = 10
RESUMABLE_MS = 30 * 60_000  # a broken-off walk is resumed if its last page is no older
SEEN_BYTES = 8
VERIFY_BATCH = 100  # ids asked for at once, the control included


class _Named(msgspec.Struct, frozen=True, gc=False):
    """A record of which nothing but the id can be read."""

    id: str


_decode_head = msgspec.json.Decoder(Head).decode
_decode_named = msgspec.json.Decoder(_Named).decode


class WalkProgress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a walk stands after its last commit. Times are epoch ms.

    `updated_after` is where a delta begins (None for a sweep); `watermark` what completing
    the walk will set; `step` counts commits, so that no two states of a walk are alike;
    `live` counts records without a tombstone and `control` is the id of one of them.
    """

    walk_id: str
    kind: WalkKind
    epoch: str
    started_at: int
    updated_at: int
    requested_at: int | None = None
    watermark: int
    updated_after: int | None = None
    cursor: str | None = None
    pages_done: bool = False
    step: int = 0
    restarts: int = 0
    page_size: int = PAGE_SIZE
    pages: int = 0
    records: int = 0
    live: int = 0
    control: str | None = None
    changes: int = 0
    verdicts: dict[str, int] = {}

    def record(
        self,
        state: Literal["running", "completed", "failed"],
        *,
        finished_at: int | None = None,
        error: str | None = None,
    ) -> WalkRecord:
        """The walk as listed."""
        return WalkRecord(
            id=self.walk_id,
            kind=self.kind,
            state=state,
            requested_at=self.requested_at,
            started_at=self.started_at,
            finished_at=finished_at,
            pages=self.pages,
            records=self.records,
            verdicts=self.verdicts,
            changes=self.changes,
            error=error,
        )


def begin(
    walk_id: str, kind: WalkKind, epoch: str, watermark: int | None, now_ms: int
) -> WalkProgress:
    """A walk that has not asked for anything yet."""
    return WalkProgress(
        walk_id=walk_id,
        kind=kind,
        epoch=epoch,
        started_at=now_ms,
        updated_at=now_ms,
        watermark=now_ms,
        updated_after=(watermark or 0) - DELTA_OVERLAP_MS if kind == "delta" else None,
    )


def resumable(progress: WalkProgress, epoch: str, now_ms: int) -> bool:
    """Whether a walk found broken off may be taken up again."""
    return progress.epoch == epoch and now_ms - progress.updated_at <= RESUMABLE_MS


class Sighting(msgspec.Struct, frozen=True):
    """One record of a page: its id, whether it surely carries no tombstone, and its bytes'
    digest."""

    course_id: str
    live: bool
    digest: bytes
    record: msgspec.Raw


def sight(records: Iterable[msgspec.Raw]) -> tuple[list[Sighting], int]:
    """The records of a page that have an id, each id once (the last wins), and how many have
    none and can only be counted."""
    sightings: dict[str, Sighting] = {}
    nameless = 0
    for record in records:
        course_id, live = _identify(record)
        if course_id:
            sightings[course_id] = Sighting(course_id, live, raw_digest(record), record)
        else:
            nameless += 1
    return list(sightings.values()), nameless


def _identify(record: msgspec.Raw) -> tuple[str, bool]:
    """A record's id, empty if it has none, and whether it surely carries no tombstone."""
    try:
        head = _decode_head(record)
    except UNREADABLE:
        # It cannot be judged, but it was seen: its course is not absent.
        try:
            return _decode_named(record).id, False
        except UNREADABLE:
            return "", False
    return head.id, head.remote_deleted_at is None


def judge_page(
    sightings: Sequence[Sighting], stored: Sequence[bytes | None], ignored: Collection[str]
) -> tuple[list[tuple[Judgement, bool]], Counter[str]]:
    """What is to be written of a page, with whether each course was live before, and how many
    records got which verdict. Records whose bytes are known under the current version go no
    further than a comparison."""
    judged: list[tuple[Judgement, bool]] = []
    verdicts: Counter[str] = Counter()
    unchanged = 0
    for sighting, packed in zip(sightings, stored, strict=True):
        if packed is not None and packed[RAW] == sighting.digest:
            unchanged += 1
            continue
        known = unpack(packed) if packed is not None else None
        judgement = judge(sighting.course_id, sighting.record, known, ignored)
        verdicts[judgement.verdict] += 1
        judged.append((judgement, known is not None and not known.deleted))
    if unchanged:
        verdicts[Verdict.UNCHANGED] += unchanged
    return judged, verdicts


def seen_digest(course_id: str) -> bytes:
    """What a sweep keeps of an id it has seen; two that collide hide an absence, once in
    10^14 for a catalogue of 100,000."""
    return xxh3_64_digest(course_id.encode())


def seen_set(stored: bytes) -> frozenset[bytes]:
    """The digests kept of a sweep."""
    return frozenset(
        stored[start : start + SEEN_BYTES] for start in range(0, len(stored), SEEN_BYTES)
    )


def too_many_absent(absent: int, live: int) -> bool:
    """Whether a sweep misses so much of a catalogue that it is not to be believed."""
    return absent > max(10, live * 15 // 100) or 2 * absent > live
