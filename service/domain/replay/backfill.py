"""Backfills: the progress through the integrations, and the courses of a page that are sent.

A backfill reports nothing that the catalogue does not know: it sends the courses whose tracked
content matches their fingerprints, under the sequence kept there. A course that differs has
changed, which the polls and their guards judge. A backfill requests such a course once more after
the next poll, and leaves it out if it still differs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import msgspec

from service.domain.courses.change import Verdict, judge
from service.domain.courses.fingerprint import Fingerprint, unpack
from service.domain.courses.received import ReceivedRecord
from service.domain.events.event import CourseFacts
from service.domain.polling.integration import Integration, PollingState
from service.domain.polling.progress import PAGE_SIZE

EVENT_TYPE = "course.created"  # the reason in every event of a backfill
DETECTED_BY = "backfill"
MAX_DEFERRED = 1_000  # courses of one integration that are requested once more
MAX_NOTES = 5  # skipped integrations that the note names
PATIENCE_MS = 30 * 60_000  # without a page from the upstream
BASELINE_PATIENCE_MS = 24 * 3_600_000  # for an integration whose baseline is not complete
RECHECK_MARGIN_SECONDS = 15  # in addition to the interval of the deltas
MAX_RECHECK_SECONDS = 300  # until differing courses are requested once more


class Leg(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a backfill in one integration. `cursor`, `landmark` and `page_size` are like
    those of a poll; `deferred` are courses to request once more, which is the stage `at` after the
    pages. `got_on_at` is the epoch ms of its last response and `failures` counts the failures
    since.
    """

    integration_id: str
    epoch: str
    got_on_at: int
    at: Literal["pages", "deferred"] = "pages"
    cursor: str | None = None
    landmark: str | None = None
    page_size: int = PAGE_SIZE
    pages: int = 0
    restarts: int = 0
    failures: int = 0
    deferred: tuple[str, ...] = ()


class BackfillProgress(msgspec.Struct, frozen=True, kw_only=True):
    """The progress of a backfill. Times are epoch ms. `after` is the last examined position in the
    index of integrations (created ms, id), and `listed` means that all are examined. `postponed`
    are those whose baseline is not complete; `leg` is the current one. `slot` is its slot in the
    queue for the credential's budget, and no request is sent before `wait_until`. `served` and
    `skipped` count integrations, and `notes` has the reasons; `left_out` counts courses. `step`
    differs in each state.
    """

    step: int = 0
    after: tuple[int, str] | None = None
    listed: bool = False
    postponed: tuple[str, ...] = ()
    leg: Leg | None = None
    slot: int = 0
    wait_until: int = 0
    served: int = 0
    skipped: int = 0
    notes: tuple[str, ...] = ()
    left_out: int = 0

    @property
    def over(self) -> bool:
        """Whether all integrations are done."""
        return self.listed and self.leg is None and not self.postponed

    @property
    def failed(self) -> bool:
        """Whether it has ended without completing any integration, though there were some."""
        return self.over and self.skipped > 0 and self.served == 0

    def note(self) -> str:
        """The note for operators."""
        notes = list(self.notes)
        if self.skipped > len(self.notes):
            notes.append(f"{self.skipped - len(self.notes)} more integrations were left out")
        if self.left_out:
            notes.append(
                f"{self.left_out} courses were left out: their upstream records differ "
                "from what the polls have recorded, or are held for review; polls report them"
            )
        return "; ".join(notes)


class Confirmed(msgspec.Struct, frozen=True):
    """A live course whose content matches its known state."""

    course_id: str
    known: Fingerprint
    record: msgspec.Raw


_decode = msgspec.json.Decoder(BackfillProgress).decode


def read_progress(stored: str) -> BackfillProgress:
    """The stored progress, or the initial one."""
    return _decode(stored) if stored else BackfillProgress()


def write_progress(progress: BackfillProgress) -> str:
    """The stored form."""
    return msgspec.json.encode(progress).decode()


def skip(progress: BackfillProgress, integration_id: str, reason: str) -> BackfillProgress:
    """Skips the current or the next integration."""
    notes = progress.notes
    if len(notes) < MAX_NOTES:
        notes = (*notes, f"{integration_id} was not read to its end: {reason}")
    return msgspec.structs.replace(
        progress, leg=None, slot=0, wait_until=0, skipped=progress.skipped + 1, notes=notes
    )


def why_not(integration: Integration, state: PollingState) -> str | None:
    """Why the integration's courses cannot be requested; None if they can."""
    if integration.paused:
        return "it is paused"
    if state.problem is not None and state.problem.stops_polls:
        return f"it needs attention: {state.problem.message}"
    return None


def confirm(
    records_seen: Sequence[ReceivedRecord],
    stored: Sequence[bytes | None],
    ignored: Collection[str],
) -> tuple[list[Confirmed], list[str]]:
    """The live courses of a page that match their known state, and the ids of those that do not.
    Deleted courses that stay deleted are neither.

    Raises FingerprintVersionError.
    """
    confirmed: list[Confirmed] = []
    differing: list[str] = []
    for seen_record, packed in zip(records_seen, stored, strict=True):
        known = None if packed is None else unpack(packed)
        match judge(seen_record, known, ignored).verdict:
            case Verdict.UNCHANGED | Verdict.REFRESHED if known is not None and not known.deleted:
                confirmed.append(Confirmed(seen_record.course_id, known, seen_record.record))
            case Verdict.UNCHANGED | Verdict.REFRESHED | Verdict.RECORDED:
                pass
            case _:
                differing.append(seen_record.course_id)
    return confirmed, differing


def facts(integration: Integration, course: Confirmed) -> CourseFacts:
    """The facts of a backfilled course event besides the course."""
    return CourseFacts(
        integration_id=integration.id,
        upstream_id=integration.upstream_id,
        external_id=integration.external_id,
        labels=integration.labels,
        course_id=course.course_id,
        remote_id=course.known.remote_id,
        origin_id=course.known.origin_id,
        changed=(),
        reason=None,
        evidence=None,
        initial=True,
        detected_by=DETECTED_BY,
    )


def sequence(known: Fingerprint) -> int:
    """The sequence of a backfilled course: that of its last event, so that a receiver that has
    applied that event, or a later one, skips it. A course without events gets 1, which is lower
    than every sequence of a later event."""
    return max(known.sequence, 1)


def recheck_ms(integration: Integration) -> int:
    """The time until a delta has reported the courses that differ, in ms."""
    seconds = integration.delta_interval_seconds + RECHECK_MARGIN_SECONDS
    return min(seconds, MAX_RECHECK_SECONDS) * 1000


def defer(leg: Leg, differing: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """The courses to request once more after a page, and the number of courses beyond the limit."""
    deferred = tuple(dict.fromkeys((*leg.deferred, *differing)))
    return deferred[:MAX_DEFERRED], max(0, len(deferred) - MAX_DEFERRED)
