"""One received record: its id, the digest of its bytes, and its statement about deletion."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

from service.domain.courses.deletion_mark import Deletion, deletion
from service.domain.courses.fingerprint import raw_digest
from service.domain.courses.record import Head
from service.domain.courses.salvage import UNREADABLE, member, text_of

LONGEST_ID_BYTES = 2_000  # of a course's id: a longer one fits into no URL, percent-encoded


class _Named(msgspec.Struct, frozen=True, gc=False):
    """A record of which only the id can be read."""

    id: str


_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
decode_head = msgspec.json.Decoder(Head).decode
_decode_named = msgspec.json.Decoder(_Named).decode


class ReceivedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One record of a page. `course_id` is empty if the record has no usable id; `deletion` is the
    meaning of `deleted_at`, the record's `remote_deleted_at`. If the head of the record cannot be
    decoded, `problem` explains why; `broken` records are not JSON at all.
    """

    course_id: str
    record: msgspec.Raw
    digest: bytes
    deletion: Deletion = Deletion.UNCLEAR
    deleted_at: str | None = None
    problem: str | None = None
    broken: bool = False

    @property
    def live(self) -> bool:
        """Whether the record certainly belongs to a course that is not deleted."""
        return self.deletion in (Deletion.NONE, Deletion.DUE)


def read_record(record: msgspec.Raw, now_ms: int, digest: bytes) -> ReceivedRecord:
    """Reads the head of one record. `now_ms` (epoch ms) decides whether a date of deletion has
    passed."""
    try:
        head = decode_head(record)
    except UNREADABLE as error:
        # The record cannot be judged, but it was received: its course is not absent.
        course_id, broken = _salvaged_id(record)
        return ReceivedRecord(
            course_id=_usable(course_id),
            record=record,
            digest=digest,
            problem=reason_of(error),
            broken=broken,
        )
    return ReceivedRecord(
        course_id=_usable(head.id),
        record=record,
        digest=digest,
        deletion=deletion(head.remote_deleted_at, now_ms),
        deleted_at=head.remote_deleted_at,
    )


def identify_records(
    records: Sequence[msgspec.Raw], now_ms: int, digests: Sequence[bytes] | None = None
) -> tuple[list[ReceivedRecord], int]:
    """The records of a page that have an id, each id once (the last wins), and the number of the
    others.

    `digests` are those of the records, if known.
    """
    received: dict[str, ReceivedRecord] = {}
    nameless = 0
    digests = digests or [raw_digest(record) for record in records]
    for record, digest in zip(records, digests, strict=True):
        found = read_record(record, now_ms, digest)
        before = received.get(found.course_id)
        # A broken record may contain other records than the one whose id can be read.
        nameless += not found.course_id or (before is not None and before.broken)
        if found.course_id:
            received[found.course_id] = found
    return list(received.values()), nameless


def unread(records: Iterable[ReceivedRecord]) -> str:
    """The text of the broken records, unescaped.

    Each may contain other records than the one whose id can be read, because an extra quote hides
    the end of a record: a course that this text names may be in the response.
    """
    text = " ".join(bytes(one.record).decode(errors="replace") for one in records if one.broken)
    unescaped = _ESCAPE.sub(lambda found: found[2] or chr(int(found[1], 16)), text)
    return unescaped.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def reason_of(error: Exception) -> str:
    """Why a record cannot be decoded, in words."""
    if isinstance(error, RecursionError):
        return "the record is nested too deeply"
    return str(error)


def _salvaged_id(record: msgspec.Raw) -> tuple[str, bool]:
    """The id of a record whose head cannot be decoded, and whether the record is broken."""
    try:
        return _decode_named(record).id, False
    except UNREADABLE:
        return text_of(member(bytes(record), "id")) or "", True


def _usable(course_id: str) -> str:
    if len(course_id) * 4 > LONGEST_ID_BYTES and len(course_id.encode()) > LONGEST_ID_BYTES:
        return ""
    return course_id
