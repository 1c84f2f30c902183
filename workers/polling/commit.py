"""Commits what a poll judged: fingerprints with their events, in parts of bounded size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from service.clock import now_ms
from service.domain.courses.change import Judgement, Verdict
from service.domain.delivery.outbox_window import order_key
from service.domain.delivery.subscription import Matcher
from service.domain.errors import StaleSubscriptionsError
from service.domain.events.event import MAX_BODY_BYTES, CourseFacts
from service.domain.events.operational import Announcement, of_integration
from service.domain.polling.integration import Baseline, Integration, PollingState, PollRecord
from service.domain.polling.progress import PageDigests, PollProgress
from service.domain.polling.triage import Judged, Mark
from service.storage.events.operational import Notices
from service.storage.polling.catalogue import Batch, Change, NewEvent, Progress
from service.storage.redis.counters import field
from service.storage.scheduling.leases import Lease
from workers.context import JobContext

MAX_CHANGES = 250  # changes in one commit
MAX_BYTES = 1_048_576  # course bytes in one commit
MAX_ENTRIES = 5_000  # outbox entries in one commit

REVIEW_REQUIRED = "integration.review_required"


class Portion(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be committed of a poll at once.

    `unchanged` and `nameless` records are only counted; `seen` are digests of ids to add to the
    full poll's; `opening` says how much is held if `marks` open a review; `detected_by` is the
    poll's kind unless given; nothing is committed unless all courses of `expected` are known
    to be live with just these digests.
    """

    expected: PageDigests | None = None
    judged: Sequence[Judged] = ()
    marks: Sequence[Mark] = ()
    unchanged: int = 0
    nameless: int = 0
    seen: bytes = b""
    opening: Mapping[str, Any] | None = None
    detected_by: str | None = None
    is_page: bool = False

    def verdicts(self) -> Counter[str]:
        """How many records got which verdict; those that wait get theirs later."""
        counted = Counter(str(one.judgement.verdict) for one in self.judged)
        counted[Verdict.UNCHANGED.value] += self.unchanged
        counted[Verdict.QUARANTINED.value] += self.nameless
        counted[Verdict.HELD.value] += sum(
            mark.operation in ("hold", "keep") for mark in self.marks
        )
        return +counted


class Committer:
    """Writes for one poll under its lease, each commit building on the one before.

    `progress` is where the poll stands, `stored` what Redis holds of it (empty if nothing
    yet), `events` how many were appended; `moved` whether it got on in this turn.
    """

    def __init__(
        self,
        context: JobContext,
        lease: Lease,
        integration: Integration,
        state: PollingState,
        progress: PollProgress,
        stored: bytes,
    ) -> None:
        self._context = context
        self._services = context.services
        self._lease = lease
        self._integration = integration
        self._state = state
        self.progress = progress
        self.stored = stored
        self.events = 0
        self.moved = False
        self._uncounted: Counter[str] = Counter()

    def count(self, increments: Counter[str]) -> None:
        """Adds to the counters with the next commit."""
        self._uncounted += increments

    async def commit(self, portion: Portion, **moved: Any) -> None:
        """Commits what was judged, in parts of bounded size, and moves the progress on.

        `moved` are fields of the progress. Only the last part sets them, so that a poll broken
        off in between does the whole again. Raises CoursesDifferError.
        """
        counted = portion.verdicts()
        moved["verdicts"] = _sum(self.progress.verdicts, counted)
        await self._commit(portion, {**moved, "updated_at": now_ms(), "error": None}, counted)
        self.moved = True

    async def stash(self, **moved: Any) -> None:
        """Stores the progress with these fields of it, without counting as progress made."""
        await self._commit(Portion(), moved, Counter())

    async def _commit(
        self, portion: Portion, moved: Mapping[str, Any], verdicts: Counter[str]
    ) -> None:
        matcher = await self._services.matchers.current()
        rest = list(portion.judged)
        while True:
            before = self.progress
            changes, taken = self._changes(matcher, portion.detected_by or before.kind, rest)
            last = taken == len(rest)
            after = msgspec.structs.replace(
                before,
                **(moved if last else {}),
                step=before.step + 1,
                changes=before.changes + sum(change.event is not None for change in changes),
            )
            batch = Batch(changes=changes)
            increments = _increments(changes, verdicts if last else Counter())
            if last:
                batch = Batch(
                    expected=portion.expected,
                    changes=changes,
                    marks=portion.marks,
                    seen=portion.seen,
                    opening=self._opening(matcher, portion.opening),
                )
                increments[field("pages_total")] += portion.is_page
                increments += self._uncounted
            encoded = msgspec.json.encode(after)
            try:
                committed = await self._services.catalogue.commit(
                    self._lease,
                    epoch=before.epoch,
                    poll_id=before.poll_id,
                    subscriptions_version=matcher.version,
                    progress=Progress(self.stored, encoded),
                    batch=batch,
                    increments=+increments,
                )
            except StaleSubscriptionsError:
                matcher = await self._services.matchers.current(fresh=True)
                continue
            self.progress, self.stored = after, encoded
            self.events += committed.events
            if committed.outboxes_woken:
                await self._context.dispatcher.dispatch("outboxes")
            if last:
                self._uncounted = Counter()
                return
            rest = rest[taken:]

    def _changes(
        self, matcher: Matcher, detected_by: str, judged: Sequence[Judged]
    ) -> tuple[list[Change], int]:
        changes: list[Change] = []
        size = entries = 0
        for taken, one in enumerate(judged):
            change = self._change(matcher, detected_by, one)
            size += len(one.judgement.record or b"")
            entries += len(change.event.outboxes) if change.event is not None else 0
            if changes and (
                len(changes) >= MAX_CHANGES or size > MAX_BYTES or entries > MAX_ENTRIES
            ):
                return changes, taken
            changes.append(change)
        return changes, len(judged)

    def _change(self, matcher: Matcher, detected_by: str, one: Judged) -> Change:
        judgement = one.judgement
        if judgement.fingerprint is None:
            return Change(course_id=judgement.course_id, problem=judgement.problem or "")
        return Change(
            course_id=judgement.course_id,
            fingerprint=judgement.fingerprint,
            live=(not judgement.fingerprint.deleted) - one.live_before,
            event=self._event(matcher, detected_by, judgement),
        )

    def _event(self, matcher: Matcher, detected_by: str, judgement: Judgement) -> NewEvent | None:
        event_type, fingerprint = judgement.event_type, judgement.fingerprint
        integration, state = self._integration, self._state
        silent = not state.baselined and integration.baseline is Baseline.SILENT
        if event_type is None or fingerprint is None or silent:
            return None
        facts = CourseFacts(
            integration_id=integration.id,
            upstream_id=integration.upstream_id,
            external_id=integration.external_id,
            labels=integration.labels,
            course_id=judgement.course_id,
            remote_id=fingerprint.remote_id,
            origin_id=fingerprint.origin_id,
            changed=judgement.changed,
            reason=judgement.reason,
            evidence=judgement.evidence,
            initial=not state.baselined and event_type == "course.created",
            detected_by=detected_by,
        )
        return NewEvent(
            type=event_type,
            facts=msgspec.json.encode(facts),
            body=b"" if fingerprint.deleted else sendable(judgement.record),
            order_key=order_key(integration.id, judgement.course_id),
            outboxes=matcher.outboxes(
                event_type=event_type,
                integration_id=integration.id,
                labels=integration.labels,
                changed=judgement.changed,
            ),
        )

    def _opening(self, matcher: Matcher, counts: Mapping[str, Any] | None) -> NewEvent | None:
        """The event that says that a review has opened, with how much it holds."""
        if counts is None:
            return None
        told = of_integration(self._integration, REVIEW_REQUIRED, counts)
        return NewEvent(
            type=told.type,
            facts=told.facts,
            order_key=told.order_key,
            outboxes=told.outboxes(matcher),
        )

    async def finish(
        self,
        record: PollRecord,
        *,
        over: bool,
        wait_ms: int,
        fields: Mapping[str, str | int | bytes],
        increments: Counter[str],
        announcements: Sequence[Announcement] = (),
    ) -> None:
        """Gives the integration back to the schedule; `storage.polls` says what is stored."""
        while True:
            notices = (
                Notices(await self._services.matchers.current(), announcements)
                if announcements
                else None
            )
            try:
                woken = await self._services.polls.finish(
                    self._lease,
                    epoch=self._state.epoch,
                    progress=self.stored,
                    record=record,
                    over=over,
                    wait_ms=wait_ms,
                    queued=self._state.requested_id,
                    fields=fields,
                    increments=increments + self._uncounted,
                    notices=notices,
                )
            except StaleSubscriptionsError:
                await self._services.matchers.current(fresh=True)
                continue
            if woken:
                await self._context.dispatcher.dispatch("outboxes")
            return


def _increments(changes: Sequence[Change], verdicts: Counter[str]) -> Counter[str]:
    increments: Counter[str] = Counter()
    for change in changes:
        if change.event is not None:
            increments[field("events_total", type=change.event.type)] += 1
    for verdict, count in verdicts.items():
        increments[field("records_total", verdict=verdict)] = count
    return increments


def _sum(verdicts: Mapping[str, int], more: Counter[str]) -> dict[str, int]:
    return dict(Counter(verdicts) + more)


def sendable(record: bytes | None) -> bytes:
    """The record, unless no body could carry it anyway."""
    return record if record is not None and len(record) <= MAX_BODY_BYTES else b""
