"""Compares a record with the stored fingerprint of its course and classifies the change."""

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

# Fields that an anonymised record, and each record nested in it, may keep.
_BOOKKEEPING: Final = frozenset({"id", "course_id", "changed_at", "remote_deleted_at"})

EventType = Literal["course.created", "course.updated", "course.deleted"]


class Verdict(StrEnum):
    """The meaning of a record for its course."""

    UNCHANGED = "unchanged"
    REFRESHED = "refreshed"  # other bytes, no tracked change: the fingerprint is updated
    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"
    RESTORED = "restored"
    RECORDED = "recorded"  # a deletion without an event
    HELD = "held"  # held for an operator's decision
    QUARANTINED = "quarantined"  # the record cannot be read, or contradicts itself


EVENT_TYPES: dict[Verdict, EventType] = {
    Verdict.CREATED: "course.created",
    Verdict.RESTORED: "course.created",
    Verdict.UPDATED: "course.updated",
    Verdict.DELETED: "course.deleted",
}


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on one course, with the fingerprint to store if it changes. `known` is the
    previous fingerprint; `fingerprint` carries its sequence and event; `record` is the received
    bytes (None for an absence); `problem` explains why a record is quarantined.
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
        """The type of the event for this verdict, if any."""
        return EVENT_TYPES.get(self.verdict)

    @property
    def live_before(self) -> bool:
        """Whether the course counted as live before."""
        return self.known is not None and not self.known.deleted


def judge(
    received: ReceivedRecord, known: Fingerprint | None, ignored: Collection[str]
) -> Judgement:
    """Compares one record with the known state of its course. Changes of the tracked paths in
    `ignored` are ignored."""
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
        # The digest matches no bytes, so the next received bytes are compared.
        fingerprint=gone(known, NO_RAW),
    )


def _judge_live(
    received: ReceivedRecord, known: Fingerprint | None, ignored: Collection[str]
) -> Judgement:
    course = _decode_course(received.record)
    # Subscribers also receive fields that decoding skips: they must be UTF-8, and numbers must be
    # small enough for receivers.
    _decode_any(received.record)
    fingerprint = Fingerprint(
        deleted=False,
        # The meaning of the same bytes changes when the date has passed: they are compared again.
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
    """The changed paths, by the version of the known digests: a path that only the current version
    tracks has no known digest to differ from."""
    version = version_of(known.version)
    digests = current if version is CURRENT else path_digests(course, version)
    return changed_paths(known.paths, digests, ignored, version)


def gone(known: Fingerprint, raw: bytes) -> Fingerprint:
    """The fingerprint of a deleted course: its names and sequence, without path digests.

    Path digests are not needed, because a course that comes back is restored whatever its content
    is. Without them the fingerprint can have the current version although the content is not known.
    """
    return msgspec.structs.replace(
        known, version=CURRENT.tag, deleted=True, raw=raw, paths=_NO_PATHS
    )


def _judge_undecodable(
    received: ReceivedRecord, known: Fingerprint | None, problem: str
) -> Judgement:
    # For a live course it does not prove a deletion: an operator should check it.
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
    """Whether a record, and each record nested in it, has only bookkeeping fields left."""
    if isinstance(content, dict):
        return all(field in _BOOKKEEPING or _is_blank(value) for field, value in content.items())
    if isinstance(content, list):
        return all(_is_blank(value) for value in content)
    return not content


def _is_anonymised(record: msgspec.Raw) -> bool:
    """Whether a record is that of a deleted course whose date was removed too: present, and
    null."""
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
