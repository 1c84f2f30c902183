"""Compares a record with the fingerprint kept of its course and judges what happened to it."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import Any, Final, Literal

import msgspec

from service.domain.courses.deletion_mark import Deletion
from service.domain.courses.fingerprint import NO_RAW, Fingerprint, changed_paths
from service.domain.courses.received import ReceivedRecord, reason_of
from service.domain.courses.record import Course, Identity
from service.domain.courses.salvage import UNREADABLE
from service.domain.courses.tracked_paths import (
    CURRENT,
    PATH_DIGEST_BYTES,
    TRACKED_PATHS,
    path_digests,
    version_of,
)

_NO_PATHS = bytes(PATH_DIGEST_BYTES * len(TRACKED_PATHS))

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

    `known` is the fingerprint before; `fingerprint` carries its sequence and event; `record` is
    the bytes as received (None for an absence); `problem` says why a record is quarantined.
    """

    course_id: str
    verdict: Verdict
    known: Fingerprint | None = None
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

    @property
    def live_before(self) -> bool:
        """Whether the course counted as live before."""
        return self.known is not None and not self.known.deleted


def judge(
    received: ReceivedRecord, known: Fingerprint | None, ignored: Collection[str]
) -> Judgement:
    """Judges one record against what is known of its course. Changes of the tracked paths in
    `ignored` count for nothing."""
    if known is not None and known.raw == received.digest:
        return Judgement(course_id=received.course_id, verdict=Verdict.UNCHANGED, known=known)
    if received.problem is not None:
        return _judge_undecodable(received, known, received.problem)
    if received.deletion is Deletion.DONE:
        return _judge_tombstone(received, known)
    try:
        if known is not None and known.deleted and _is_blank(_decode_any(received.record)):
            return _still_deleted(received, known)
        if received.deletion is Deletion.UNCLEAR:
            problem = f"remote_deleted_at is not a plausible date: {received.deleted_at!a:.60}"
            return _quarantined(received, known, problem)
        return _judge_live(received, known, ignored)
    except UNREADABLE as error:
        return _judge_undecodable(received, known, reason_of(error))


def judge_absence(course_id: str, known: Fingerprint) -> Judgement:
    """The verdict on a live course whose absence has been verified."""
    return Judgement(
        course_id=course_id,
        verdict=Verdict.DELETED,
        known=known,
        evidence="absence",
        # No bytes led here, so whatever bytes come next are looked at.
        fingerprint=gone(known, NO_RAW),
    )


def _judge_live(
    received: ReceivedRecord, known: Fingerprint | None, ignored: Collection[str]
) -> Judgement:
    course = _decode_course(received.record)
    # Fields that decoding skips go on to subscribers too: they must be UTF-8, and no number may be
    # larger than a receiver can read.
    _decode_any(received.record)
    fingerprint = Fingerprint(
        deleted=False,
        # The same bytes mean something else once the date has passed: they are looked at again.
        raw=NO_RAW if received.deletion is Deletion.DUE else received.digest,
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
        known=known,
        fingerprint=fingerprint,
        changed=changed,
        reason=reason,
        record=bytes(received.record),
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


def _judge_undecodable(
    received: ReceivedRecord, known: Fingerprint | None, problem: str
) -> Judgement:
    # For a live course it does not prove a deletion: a person should look at it.
    if known is None and _is_anonymised(received.record):
        return _still_deleted(received, known)
    return _quarantined(received, known, problem)


def _judge_tombstone(received: ReceivedRecord, known: Fingerprint | None) -> Judgement:
    if known is None or known.deleted:
        return _still_deleted(received, known)
    return Judgement(
        course_id=received.course_id,
        verdict=Verdict.DELETED,
        known=known,
        evidence="tombstone",
        fingerprint=gone(known, received.digest),
        record=bytes(received.record),
    )


def _still_deleted(received: ReceivedRecord, known: Fingerprint | None) -> Judgement:
    if known is not None:
        fingerprint = gone(known, received.digest)
    else:
        identity = _identity(received.record)
        fingerprint = Fingerprint(
            deleted=True,
            raw=received.digest,
            paths=_NO_PATHS,
            remote_id=identity.remote_id,
            origin_id=identity.origin_id,
        )
    return Judgement(
        course_id=received.course_id,
        verdict=Verdict.RECORDED,
        known=known,
        fingerprint=fingerprint,
        record=bytes(received.record),
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


def _quarantined(received: ReceivedRecord, known: Fingerprint | None, problem: str) -> Judgement:
    return Judgement(
        course_id=received.course_id,
        verdict=Verdict.QUARANTINED,
        known=known,
        record=bytes(received.record),
        problem=problem,
    )
