"""Compares a record with the fingerprint kept of its course and says what happened to it."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import Any, Final, Literal

import msgspec

from service.domain.courses.deletion_mark import Deletion, deletion
from service.domain.courses.fingerprint import (
    CURRENT,
    NO_RAW,
    PATH_DIGEST_BYTES,
    TRACKED_PATHS,
    Fingerprint,
    changed_paths,
    path_digests,
    raw_digest,
    version_of,
)
from service.domain.courses.record import Course, Head, Identity
from service.domain.courses.salvage import UNREADABLE

_NO_PATHS = bytes(PATH_DIGEST_BYTES * len(TRACKED_PATHS))

_decode_head = msgspec.json.Decoder(Head).decode
_decode_identity = msgspec.json.Decoder(Identity).decode
_decode_course = msgspec.json.Decoder(Course).decode
_decode_any = msgspec.json.Decoder(dict[str, Any]).decode

# What an anonymised record, and every record nested in it, may keep.
_BOOKKEEPING: Final = frozenset({"id", "course_id", "changed_at", "remote_deleted_at"})

EventType = Literal["course.created", "course.updated", "course.deleted"]


class Verdict(StrEnum):
    """What a record means for its course."""

    UNCHANGED = "unchanged"
    REFRESHED = "refreshed"  # other bytes, nothing tracked changed: the fingerprint follows
    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"
    RESTORED = "restored"
    RECORDED = "recorded"  # a deletion that nobody needs to hear of
    HELD = "held"  # kept back for a person to decide on
    QUARANTINED = "quarantined"  # the record cannot be read, or contradicts itself


EVENT_TYPES: dict[Verdict, EventType] = {
    Verdict.CREATED: "course.created",
    Verdict.RESTORED: "course.created",
    Verdict.UPDATED: "course.updated",
    Verdict.DELETED: "course.deleted",
}


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on one course, with the fingerprint to keep if it is to be kept.

    `fingerprint` carries the sequence and event of the one before; `record` is the bytes as
    received (None for an absence); `problem` says why a record is quarantined.
    """

    course_id: str
    verdict: Verdict
    fingerprint: Fingerprint | None = None
    changed: tuple[str, ...] = ()
    reason: str | None = None
    evidence: str | None = None
    record: bytes | None = None
    problem: str | None = None

    @property
    def event_type(self) -> EventType | None:
        """The type of the event that this verdict calls for."""
        return EVENT_TYPES.get(self.verdict)


def judge(
    course_id: str,
    record: msgspec.Raw,
    known: Fingerprint | None,
    ignored: Collection[str],
    now_ms: int,
) -> Judgement:
    """Judges one record against what is known of its course.

    `ignored` are tracked paths whose changes count for nothing; `now_ms` (epoch ms) decides
    whether a date of deletion has passed.
    """
    raw = raw_digest(record)
    if known is not None and known.raw == raw:
        return Judgement(course_id=course_id, verdict=Verdict.UNCHANGED)
    try:
        deleted_at = _decode_head(record).remote_deleted_at
        found = deletion(deleted_at, now_ms)
        if found is Deletion.DONE:
            return _judge_tombstone(course_id, record, raw, known)
        if known is not None and known.deleted and _is_blank(_decode_any(record)):
            return _still_deleted(course_id, record, raw, known)
        if found is Deletion.UNCLEAR:
            problem = f"remote_deleted_at is not a plausible date: {deleted_at!a:.60}"
            return _quarantined(course_id, record, problem)
        # The same bytes mean something else once the date has passed: they are looked at again.
        return _judge_live(record, NO_RAW if found is Deletion.DUE else raw, known, ignored)
    except UNREADABLE as error:
        # Of a live course it is no proof that it is gone: a person should look at it.
        if known is None and _is_anonymised(record):
            return _still_deleted(course_id, record, raw, known)
        return _quarantined(course_id, record, _reason(error))


def judge_absence(course_id: str, known: Fingerprint) -> Judgement:
    """The verdict on a live course whose absence has been verified."""
    return Judgement(
        course_id=course_id,
        verdict=Verdict.DELETED,
        evidence="absence",
        # No bytes led here, so whatever bytes come next are looked at.
        fingerprint=gone(known, NO_RAW),
    )


def _judge_live(
    record: msgspec.Raw,
    raw: bytes,
    known: Fingerprint | None,
    ignored: Collection[str],
) -> Judgement:
    course = _decode_course(record)
    body = bytes(record)
    # Fields that decoding skips go on to subscribers too: they must be UTF-8, and no number may be
    # larger than a receiver can read.
    _decode_any(record)
    fingerprint = Fingerprint(
        deleted=False,
        raw=raw,
        paths=path_digests(course),
        remote_id=course.remote_id,
        origin_id=course.origin_id,
        sequence=known.sequence if known is not None else 0,
        event=known.event if known is not None else None,
    )
    changed: tuple[str, ...] = ()
    reason = None
    if known is None:
        verdict = Verdict.CREATED
    elif known.deleted:
        verdict, reason = Verdict.RESTORED, "restored"
    else:
        changed = _changed(course, fingerprint.paths, known, ignored)
        verdict = Verdict.UPDATED if changed else Verdict.REFRESHED
    return Judgement(
        course_id=course.id,
        verdict=verdict,
        fingerprint=fingerprint,
        changed=changed,
        reason=reason,
        record=body,
    )


def _changed(
    course: Course, current: bytes, known: Fingerprint, ignored: Collection[str]
) -> tuple[str, ...]:
    """The paths that changed, judged by the version that the known digests are of: what only
    the current one tracks has nothing yet that it could differ from."""
    version = version_of(known.version)
    digests = current if version is CURRENT else path_digests(course, version)
    return changed_paths(known.paths, digests, ignored, version)


def gone(known: Fingerprint, raw: bytes) -> Fingerprint:
    """What is kept of a course that is gone: who it was, and its place among its events.

    Path digests are given up. Nothing is compared with them, since a course that comes back is
    restored whatever it says, and without them the current version can be written though the
    content is not at hand. Otherwise a course deleted under an older version would keep it.
    """
    return msgspec.structs.replace(
        known, version=CURRENT.tag, deleted=True, raw=raw, paths=_NO_PATHS
    )


def _judge_tombstone(
    course_id: str, record: msgspec.Raw, raw: bytes, known: Fingerprint | None
) -> Judgement:
    if known is not None and not known.deleted:
        return Judgement(
            course_id=course_id,
            verdict=Verdict.DELETED,
            evidence="tombstone",
            fingerprint=gone(known, raw),
            record=bytes(record),
        )
    return _still_deleted(course_id, record, raw, known)


def _still_deleted(
    course_id: str, record: msgspec.Raw, raw: bytes, known: Fingerprint | None
) -> Judgement:
    if known is not None:
        fingerprint = gone(known, raw)
    else:
        identity = _identity(record)
        fingerprint = Fingerprint(
            deleted=True,
            raw=raw,
            paths=_NO_PATHS,
            remote_id=identity.remote_id,
            origin_id=identity.origin_id,
        )
    return Judgement(
        course_id=course_id,
        verdict=Verdict.RECORDED,
        fingerprint=fingerprint,
        record=bytes(record),
    )


def _identity(record: msgspec.Raw) -> Identity:
    try:
        return _decode_identity(record)
    except UNREADABLE:
        return Identity()


def _is_blank(content: Any) -> bool:
    """Whether nothing but bookkeeping is left of a record or of those nested in it."""
    if isinstance(content, dict):
        return all(field in _BOOKKEEPING or _is_blank(value) for field, value in content.items())
    if isinstance(content, list):
        return all(_is_blank(value) for value in content)
    return not content


def _is_anonymised(record: msgspec.Raw) -> bool:
    """Whether a record is what is left of a deleted one whose date went too: there, and null."""
    try:
        content = _decode_any(record)
        return "remote_id" in content and "revisions" in content and _is_blank(content)
    except UNREADABLE:
        return False


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "the record is nested too deeply"
    return str(error)


def _quarantined(course_id: str, record: msgspec.Raw, problem: str) -> Judgement:
    return Judgement(
        course_id=course_id,
        verdict=Verdict.QUARANTINED,
        record=bytes(record),
        problem=problem,
    )
