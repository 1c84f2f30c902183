"""Commits the judgements of a poll: fingerprints with their events, in parts of bounded size."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from service.clock import now_ms
from service.domain.courses.change import Judgement, Verdict
from service.domain.delivery.outbox_window import order_key
from service.domain.delivery.subscription import Matcher
from service.domain.errors import StaleSubscriptionsError
from service.domain.events.event import MAX_BODY_BYTES, CourseFacts
from service.domain.events.operational import Announcement, of_integration
from service.domain.polling.integration import Baseline, Integration, PollingState, PollRecord
from service.domain.polling.page import PageDigests
from service.domain.polling.progress import PollProgress, after_commit, after_part
from service.domain.polling.state_change import StateChange
from service.domain.polling.triage import Mark
from service.domain.review.guards import Exceeded
from service.storage.events.announcing import Notices
from service.storage.events.stored_bodies import compressed
from service.storage.polling.catalogue import Batch, Catalogue, Change, NewEvent, Progress
from service.storage.polling.poll_turns import Polls
from service.storage.redis.counters import field
from service.storage.registry.matcher_cache import Matchers
from service.storage.scheduling.leases import Lease
from workers.dispatch.dispatcher import Dispatcher

MAX_CHANGES = 125  # changes in one commit, so that a page has several
MAX_BYTES = 1_048_576  # course bytes in one commit
MAX_ENTRIES = 5_000  # outbox entries in one commit
_CHANGES_AT_ONCE = 25  # changes that are prepared before another task may run

REVIEW_REQUIRED = "integration.review_required"

T = TypeVar("T")


class Portion(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a poll to commit at once. `unchanged` and `nameless` records are only counted;
    `seen` are digests of ids to add to the full poll's; `opening` is the number of held changes if
    `marks` open a review, `exceeded` are the exceeded limits; `detected_by` is the poll's kind
    unless given; the commit fails unless all courses of `expected` are live with exactly these
    digests.
    """

    expected: PageDigests | None = None
    judged: Sequence[Judgement] = ()
    marks: Sequence[Mark] = ()
    unchanged: int = 0
    nameless: int = 0
    seen: bytes = b""
    opening: Mapping[str, Any] | None = None
    exceeded: Sequence[Exceeded] = ()
    detected_by: str | None = None
    is_page: bool = False

    def verdicts(self) -> Counter[str]:
        """The number of records by verdict, without waiting ones, which get theirs later."""
        counted = Counter(str(one.verdict) for one in self.judged)
        counted[Verdict.UNCHANGED.value] += self.unchanged
        counted[Verdict.QUARANTINED.value] += self.nameless
        counted[Verdict.HELD.value] += sum(
            mark.operation in ("hold", "keep") for mark in self.marks
        )
        return +counted


class _Part(msgspec.Struct, frozen=True):
    """A prepared commit, and the poll's progress after it."""

    batch: Batch
    after: PollProgress
    increments: Counter[str]


class Committer:
    """Writes for one poll under its lease, each commit based on the previous one. `progress` is the
    poll's progress, `stored` its stored form (empty if none), `events` the number of appended
    events; `advanced` is whether this turn committed progress.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        polls: Polls,
        matchers: Matchers,
        dispatcher: Dispatcher,
        lease: Lease,
        integration: Integration,
        state: PollingState,
        progress: PollProgress,
        stored: bytes,
    ) -> None:
        self._catalogue = catalogue
        self._polls = polls
        self._matchers = matchers
        self._dispatcher = dispatcher
        self._lease = lease
        self._integration = integration
        self._state = state
        self.progress = progress
        self.stored = stored
        self.events = 0
        self.advanced = False
        self._uncounted: Counter[str] = Counter()

    def count(self, increments: Counter[str]) -> None:
        """Adds to the counters with the next commit."""
        self._uncounted += increments

    async def commit(self, portion: Portion, planned: PollProgress) -> None:
        """Commits judgements in parts of bounded size, and moves the progress to `planned`.

        Only the last part does that, so that a poll that is interrupted in between repeats the
        whole. While Redis writes a part, the next one is prepared. Raises CoursesDifferError.
        """
        rest, matcher = portion.judged, await self._matchers.current()
        part: _Part | None = None
        while True:
            if part is None:
                part = await self._part(portion, rest, planned, matcher, self.progress)
            left = rest[len(part.batch.changes) :]
            preparing = (
                asyncio.create_task(self._part(portion, left, planned, matcher, part.after))
                if left
                else None
            )
            try:
                await self._write(matcher, part)
                if preparing is None:
                    break
                rest, part = left, await preparing
            except StaleSubscriptionsError:
                matcher, part = await self._matchers.current(fresh=True), None
            finally:
                if preparing is not None:
                    preparing.cancel()
        self.advanced = True

    async def stash(self, planned: PollProgress) -> None:
        """Stores the progress without counting as progress made."""
        await self._with_matcher(
            lambda matcher: self._write(matcher, _Part(Batch(), after_part(planned, 0), Counter()))
        )

    async def _with_matcher(self, attempt: Callable[[Matcher], Awaitable[T]]) -> T:
        """Runs an attempt, again while the subscriptions have changed meanwhile."""
        matcher = await self._matchers.current()
        while True:
            try:
                return await attempt(matcher)
            except StaleSubscriptionsError:
                matcher = await self._matchers.current(fresh=True)

    async def _part(
        self,
        portion: Portion,
        rest: Sequence[Judgement],
        planned: PollProgress,
        matcher: Matcher,
        before: PollProgress,
    ) -> _Part:
        """The next part of a portion, of which `rest` is left, after the progress `before`."""
        changes = await self._changes(matcher, portion.detected_by or before.kind, rest)
        types = Counter(change.event.type for change in changes if change.event is not None)
        increments = Counter({field("events_total", type=of): types[of] for of in types})
        if len(changes) < len(rest):
            return _Part(Batch(changes=changes), after_part(before, types.total()), increments)
        batch = Batch(
            expected=portion.expected,
            changes=changes,
            marks=portion.marks,
            seen=portion.seen,
            opening=self._opening(matcher, portion.opening),
            exceeded=portion.exceeded,
        )
        verdicts = portion.verdicts()
        for verdict, count in verdicts.items():
            increments[field("records_total", verdict=verdict)] = count
        increments[field("pages_total")] += portion.is_page
        after = after_commit(
            before, planned, events=types.total(), verdicts=verdicts, now_ms=now_ms()
        )
        return _Part(batch, after, increments)

    async def _write(self, matcher: Matcher, part: _Part) -> None:
        before, encoded = self.progress, msgspec.json.encode(part.after)
        # Requests that are counted meanwhile are counted with the next commit.
        uncounted, self._uncounted = self._uncounted, Counter()
        try:
            committed = await self._catalogue.commit(
                self._lease,
                epoch=before.epoch,
                poll_id=before.poll_id,
                subscriptions_version=matcher.version,
                progress=Progress(self.stored, encoded),
                batch=part.batch,
                increments=+(part.increments + uncounted),
            )
        except BaseException:
            self._uncounted += uncounted
            raise
        self.progress, self.stored = part.after, encoded
        self.events += committed.events
        if committed.outboxes_woken:
            await self._dispatcher.dispatch("outboxes")

    async def _changes(
        self, matcher: Matcher, detected_by: str, judged: Sequence[Judgement]
    ) -> list[Change]:
        """The changes that one commit may have; lets other tasks run in between."""
        changes: list[Change] = []
        size = entries = 0
        for one in judged:
            if len(changes) % _CHANGES_AT_ONCE == 0:
                await asyncio.sleep(0)
            change = self._change(matcher, detected_by, one)
            size += len(one.record or b"")
            entries += len(change.event.outboxes) if change.event is not None else 0
            if changes and (
                len(changes) >= MAX_CHANGES or size > MAX_BYTES or entries > MAX_ENTRIES
            ):
                break
            changes.append(change)
        return changes

    def _change(self, matcher: Matcher, detected_by: str, judgement: Judgement) -> Change:
        if judgement.fingerprint is None:
            return Change(course_id=judgement.course_id, problem=judgement.problem or "")
        return Change(
            course_id=judgement.course_id,
            fingerprint=judgement.fingerprint,
            live=(not judgement.fingerprint.deleted) - judgement.live_before,
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
            body=b"" if fingerprint.deleted else compressed(sendable(judgement.record)),
            order_key=order_key(integration.id, judgement.course_id),
            outboxes=matcher.outboxes(
                event_type=event_type,
                integration_id=integration.id,
                labels=integration.labels,
                changed=judgement.changed,
            ),
        )

    def _opening(self, matcher: Matcher, counts: Mapping[str, Any] | None) -> NewEvent | None:
        """The event for a new review, with the numbers of held changes."""
        if counts is None:
            return None
        announced = of_integration(self._integration, REVIEW_REQUIRED, counts)
        return NewEvent(
            type=announced.type,
            facts=announced.facts,
            order_key=announced.order_key,
            outboxes=announced.outboxes(matcher),
        )

    async def finish(
        self,
        record: PollRecord,
        *,
        over: bool,
        wait_ms: int,
        change: StateChange,
        increments: Counter[str],
        announcements: Sequence[Announcement] = (),
    ) -> None:
        """Returns the integration to the schedule, with its state changed. `Polls.finish` explains
        the arguments."""

        async def attempt(matcher: Matcher | None) -> int:
            return await self._polls.finish(
                self._lease,
                epoch=self._state.epoch,
                progress=self.stored,
                record=record,
                over=over,
                wait_ms=wait_ms,
                queued=self._state.requested_id,
                change=change,
                increments=increments + self._uncounted,
                notices=None if matcher is None else Notices(matcher, announcements),
            )

        woken = await (self._with_matcher(attempt) if announcements else attempt(None))
        if woken:
            await self._dispatcher.dispatch("outboxes")


def sendable(record: bytes | None) -> bytes:
    """The record, unless it is too large for any body."""
    return record if record is not None and len(record) <= MAX_BODY_BYTES else b""
