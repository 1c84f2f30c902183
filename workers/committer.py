"""Commits what a walk judged: fingerprints with their events, in parts of bounded size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec
from xxhash import xxh3_64_hexdigest

from service.clock import now_ms
from service.domain.diff import Judgement
from service.domain.errors import StaleSubscriptionsError
from service.domain.events import MAX_BODY_BYTES, CourseFacts
from service.domain.integrations import Baseline, Integration, WalkingState, WalkRecord
from service.domain.subscriptions import Matcher
from service.domain.walking import WalkProgress
from service.storage.catalogue import Change, NewEvent, Progress
from service.storage.counters import field
from service.storage.leases import Lease
from workers.process import JobContext

MAX_CHANGES = 250  # changes in one commit
MAX_BYTES = 1_048_576  # course bytes in one commit
MAX_ENTRIES = 5_000  # lane entries in one commit


class Committer:
    """Writes for one walk under its lease, each commit building on the one before.

    `stored` is the walk's progress as Redis holds it, `events` how many were appended.
    """

    def __init__(
        self,
        context: JobContext,
        lease: Lease,
        integration: Integration,
        state: WalkingState,
        stored: bytes,
    ) -> None:
        self._context = context
        self._services = context.services
        self._lease = lease
        self._integration = integration
        self._state = state
        self.stored = stored
        self.events = 0

    async def commit(
        self,
        before: WalkProgress,
        after: WalkProgress,
        judged: Sequence[tuple[Judgement, bool]],
        seen: bytes,
        verdicts: Counter[str],
    ) -> WalkProgress:
        """Commits what was judged, in parts of bounded size. Only the last part moves the
        cursor, so that a walk broken off in between fetches the page again."""
        after = msgspec.structs.replace(after, updated_at=now_ms())
        return await self._commit(before, after, judged, seen, verdicts)

    async def _commit(
        self,
        before: WalkProgress,
        after: WalkProgress,
        judged: Sequence[tuple[Judgement, bool]],
        seen: bytes,
        verdicts: Counter[str],
    ) -> WalkProgress:
        matcher = await self._services.matchers.current()
        rest = list(judged)
        while True:
            changes, taken = self._changes(matcher, before.kind, rest)
            last = taken == len(rest)
            goal = after if last else before
            changed = sum(change.event is not None for change in changes)
            step = msgspec.structs.replace(
                goal,
                step=before.step + 1,
                changes=before.changes + changed,
            )
            encoded = msgspec.json.encode(step)
            increments = self._increments(changes, verdicts if last else Counter(), last)
            try:
                committed = await self._services.catalogue.commit(
                    self._lease,
                    epoch=before.epoch,
                    walk_id=before.walk_id,
                    subscriptions_version=matcher.version,
                    progress=Progress(self.stored, encoded),
                    changes=changes,
                    seen=seen if last else b"",
                    increments=increments,
                )
            except StaleSubscriptionsError:
                matcher = await self._services.matchers.current(fresh=True)
                continue
            self.stored = encoded
            self.events += committed.events
            if committed.lanes_woken:
                await self._context.dispatcher.dispatch("lanes")
            if last:
                return step
            rest = rest[taken:]
            before = step
            after = msgspec.structs.replace(after, changes=step.changes)

    def _changes(
        self, matcher: Matcher, kind: str, judged: Sequence[tuple[Judgement, bool]]
    ) -> tuple[list[Change], int]:
        changes: list[Change] = []
        size = entries = 0
        for taken, (judgement, was_live) in enumerate(judged):
            change = self._change(matcher, kind, judgement, was_live)
            size += len(judgement.record or b"")
            entries += len(change.event.lanes) if change.event is not None else 0
            if changes and (
                len(changes) >= MAX_CHANGES or size > MAX_BYTES or entries > MAX_ENTRIES
            ):
                return changes, taken
            changes.append(change)
        return changes, len(judged)

    def _change(self, matcher: Matcher, kind: str, judgement: Judgement, was_live: bool) -> Change:
        if judgement.fingerprint is None:
            return Change(course_id=judgement.course_id, problem=judgement.problem or "")
        return Change(
            course_id=judgement.course_id,
            fingerprint=judgement.fingerprint,
            live=(not judgement.fingerprint.deleted) - was_live,
            event=self._event(matcher, kind, judgement),
        )

    def _event(self, matcher: Matcher, kind: str, judgement: Judgement) -> NewEvent | None:
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
            detected_by=kind,
        )
        return NewEvent(
            type=event_type,
            facts=msgspec.json.encode(facts),
            body=b"" if fingerprint.deleted else _sendable(judgement.record),
            order_key=xxh3_64_hexdigest(f"{integration.id} {judgement.course_id}".encode()),
            lanes=matcher.lanes(
                event_type=event_type,
                integration_id=integration.id,
                labels=integration.labels,
                changed=judgement.changed,
            ),
        )

    def _increments(
        self, changes: Sequence[Change], verdicts: Counter[str], page: bool
    ) -> Counter[str]:
        increments: Counter[str] = Counter()
        for change in changes:
            if change.event is not None:
                increments[field("events_total", type=change.event.type)] += 1
        for verdict, count in verdicts.items():
            if count:
                increments[field("records_total", verdict=str(verdict))] = count
        if page and verdicts:
            increments[field("pages_total")] += 1
        return increments

    async def stash(self, progress: WalkProgress) -> WalkProgress:
        """Stores a walk's progress as it is, without counting as progress made."""
        return await self._commit(progress, progress, (), b"", Counter())

    async def finish(
        self,
        progress: WalkProgress,
        record: WalkRecord,
        *,
        over: bool,
        wait_ms: int,
        fields: Mapping[str, str | int | bytes],
        increments: Counter[str],
        event: NewEvent | None = None,
        subscriptions_version: int = 0,
    ) -> None:
        """Gives the integration back to the schedule; `storage.walks` says what is stored."""
        await self._services.walks.finish(
            self._lease,
            epoch=self._state.epoch,
            progress=self.stored,
            record=record,
            over=over,
            wait_ms=wait_ms,
            queued=self._state.requested_id,
            fields=fields,
            increments=increments,
            event=event,
            subscriptions_version=subscriptions_version,
        )


def _sendable(record: bytes | None) -> bytes:
    """The record, unless no body could carry it anyway."""
    return record if record is not None and len(record) <= MAX_BODY_BYTES else b""
