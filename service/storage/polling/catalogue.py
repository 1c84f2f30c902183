"""The catalogue: the fingerprints of one integration's epoch, and the commits that change them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import msgspec

from service.domain.courses.fingerprint import NO_EVENT, Fingerprint, is_deleted, unpack
from service.domain.delivery.subscription import Outbox
from service.domain.errors import CoursesDifferError
from service.domain.polling.page import PageDigests
from service.domain.polling.seen_courses import SeenCourses
from service.domain.polling.triage import Mark
from service.domain.review.guards import Exceeded
from service.ids import event_suffixes
from service.storage.events.announcing import OutboxArgument, OutboxTable
from service.storage.redis import keys
from service.storage.redis.counters import Counters
from service.storage.redis.keys import EpochKeys, Key, ScheduleKeys
from service.storage.redis.scripts import Script, run
from service.storage.scheduling.leases import Fence, Lease

if TYPE_CHECKING:
    from redis.asyncio import Redis

SEEN_LIFETIME_SECONDS = 6 * 3600
_SCAN_COUNT = 1_000


class NewEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event to append: `body` is the record in its stored form; `order_key` orders the event on
    its outboxes."""

    type: str
    facts: bytes
    outboxes: Sequence[Outbox]
    order_key: str
    body: bytes = b""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One course to write: its new fingerprint, or the reason why its record does not decode.

    `live` is the change of the number of live courses.
    """

    course_id: str
    fingerprint: Fingerprint | None = None
    problem: str = ""
    live: int = 0
    event: NewEvent | None = None


class Progress(msgspec.Struct, frozen=True):
    """A poll's stored progress: the value before a commit, and the value after it."""

    before: bytes
    after: bytes


class Differing(msgspec.Struct, frozen=True):
    """A course in an unexpected state: its index, from 1, and its packed fingerprint, None if it is
    unknown."""

    index: int
    packed: bytes | None


class Committed(msgspec.Struct, frozen=True):
    """The result of a commit: nothing was written if there are courses in an unexpected state."""

    events: int
    outboxes_woken: int
    refused: list[Differing] = []


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """The writes of one commit besides the poll's progress. `seen` are digests of ids to add to the
    full poll's; `opening` is the event for a new review, appended if `marks` open one; `exceeded`
    are the limits for which they hold changes. Nothing is written unless all courses of `expected`
    are live and known by these digests.
    """

    expected: PageDigests | None = None
    changes: Sequence[Change] = ()
    marks: Sequence[Mark] = ()
    seen: bytes = b""
    opening: NewEvent | None = None
    exceeded: Sequence[Exceeded] = ()


class AppendedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event to append; `targets` names its outboxes."""

    type: str
    suffix: str
    facts: bytes
    body: bytes
    order_key: str
    targets: str


class WrittenChange(msgspec.Struct, frozen=True, kw_only=True):
    """A course to write: the parts of its packed fingerprint before and after its sequence and its
    last event; or the `problem` for which its record is quarantined."""

    course_id: str
    problem: str | None = None
    head: bytes | None = None
    sequence: int | None = None
    last_event: str | None = None
    tail: bytes | None = None
    live: int | None = None
    event: AppendedEvent | None = None


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """Courses that must be live and known by these digests.

    All values are joined, because passing hundreds of values costs more than processing them.
    """

    course_ids: bytes
    lengths: Sequence[int]
    digests: bytes


class Commit(Script[Committed]):
    """Commits one part of a poll: fingerprints, their events, the outboxes, the counters and the
    poll's progress, all or nothing. Everything is validated before the first write.

    `progress_as_stored` is the progress before this commit, so that a repeated call and a server
    that lost its last second are detected; `seen_digests` are added to those of the full poll.
    `opening` is appended if the marks open a review, which keeps `exceeded`.

    Refuses with LEASE, EPOCH, PROGRESS or SUBSCRIPTIONS. If courses are in an unexpected state, it
    writes nothing either and returns their known state.
    """

    lease: Fence
    integration: Key
    kept: EpochKeys
    counters: Key
    log: Key = keys.EVENTS
    subscriptions_version: Key = keys.SUBSCRIPTIONS_VERSION
    totals: Key = keys.TOTALS
    schedule: ScheduleKeys = keys.schedule("outboxes")
    integration_id: str
    epoch: str
    version: int
    progress_as_stored: bytes
    progress: bytes
    seen_digests: bytes | None
    expected: Expected | None
    opening: AppendedEvent | None
    exceeded: bytes | None
    changes: Sequence[WrittenChange]
    marks: Sequence[Mark]
    outboxes: Sequence[OutboxArgument]
    increments: Mapping[str, int]
    kept_seconds: int = SEEN_LIFETIME_SECONDS


class Catalogue:
    """Reads and writes fingerprints."""

    def __init__(self, redis: Redis, counters: Counters) -> None:
        self._redis = redis
        self._counters = counters

    async def read(
        self, integration_id: str, epoch: str, course_ids: Sequence[str]
    ) -> list[bytes | None]:
        """The packed fingerprints of `course_ids`, None for an unknown course."""
        if not course_ids:
            return []
        found = await self._redis.hmget(keys.catalogue(integration_id, epoch), list(course_ids))
        return cast("list[bytes | None]", found)

    async def live_among(
        self, integration_id: str, epoch: str, course_ids: Sequence[str]
    ) -> dict[str, Fingerprint]:
        """The known state of the live courses among `course_ids`."""
        stored = await self.read(integration_id, epoch, course_ids)
        known = {
            course_id: unpack(packed)
            for course_id, packed in zip(course_ids, stored, strict=True)
            if packed is not None
        }
        return {course_id: one for course_id, one in known.items() if not one.deleted}

    async def live(self, integration_id: str, epoch: str) -> AsyncIterator[str]:
        """The ids of all live courses, in no order; an id may occur twice."""
        async for course_id, packed in self._redis.hscan_iter(
            keys.catalogue(integration_id, epoch), count=_SCAN_COUNT
        ):
            if not is_deleted(packed):
                yield course_id.decode()

    async def any_live(self, integration_id: str, epoch: str, most: int) -> list[str]:
        """Some live courses, chosen at random from `most`."""
        found = await self._redis.hrandfield(
            keys.catalogue(integration_id, epoch), most, withvalues=True
        )
        pairs = cast("list[bytes]", found or [])
        return [
            course_id.decode()
            for course_id, packed in zip(pairs[::2], pairs[1::2], strict=True)
            if not is_deleted(packed)
        ]

    async def quarantined_not_live(self, integration_id: str, epoch: str) -> list[str]:
        """The ids of courses whose records do not decode and that are not live: they are unknown,
        or deleted."""
        reasons = cast(
            "list[bytes]", await self._redis.hkeys(keys.quarantine(integration_id, epoch))
        )
        names = [name.decode() for name in reasons]
        known = await self.read(integration_id, epoch, names)
        return [
            name
            for name, packed in zip(names, known, strict=True)
            if packed is None or is_deleted(packed)
        ]

    async def seen(self, integration_id: str, poll_id: str) -> SeenCourses:
        """The courses that a full poll has read so far."""
        stored = cast("bytes", await self._redis.get(keys.seen(integration_id, poll_id)) or b"")
        return await asyncio.to_thread(SeenCourses, stored)

    async def commit(
        self,
        lease: Lease,
        *,
        epoch: str,
        poll_id: str,
        subscriptions_version: int,
        progress: Progress,
        batch: Batch,
        increments: Counter[str],
    ) -> Committed:
        """Writes changes, their events, outboxes, marks and counters, all or nothing.

        Raises LeaseLostError, EpochEndedError, StaleSubscriptionsError or CoursesDifferError; then
        nothing was written. A repeated call finds a later progress and counts as a lost lease.
        """
        integration_id = lease.owned_id
        table = OutboxTable()
        count = sum(change.event is not None for change in batch.changes)
        suffixes = iter(event_suffixes(count + (batch.opening is not None)))
        commit = Commit(
            lease=lease.fence,
            integration=keys.integration(integration_id),
            kept=keys.of_epoch(integration_id, epoch, poll_id),
            counters=await self._counters.key(),
            integration_id=integration_id,
            epoch=epoch,
            version=subscriptions_version,
            progress_as_stored=progress.before,
            progress=progress.after,
            seen_digests=batch.seen or None,
            expected=_expectation(batch.expected),
            opening=_event(batch.opening, table, suffixes),
            exceeded=msgspec.json.encode(batch.exceeded) if batch.exceeded else None,
            changes=[_change(change, table, suffixes) for change in batch.changes],
            marks=batch.marks,
            outboxes=table.outboxes,
            increments=increments,
        )
        committed = await run(self._redis, commit)
        if committed.refused:
            raise CoursesDifferError({one.index - 1: one.packed for one in committed.refused})
        return committed


def _expectation(expected: PageDigests | None) -> Expected | None:
    if expected is None:
        return None
    ids = expected.course_ids
    return Expected(
        course_ids=b"".join(ids),
        lengths=[*map(len, ids)],
        digests=b"".join(expected.digests),
    )


def _event(
    event: NewEvent | None, table: OutboxTable, suffixes: Iterator[str]
) -> AppendedEvent | None:
    if event is None:
        return None
    return AppendedEvent(
        type=event.type,
        suffix=next(suffixes),
        facts=event.facts,
        body=event.body,
        order_key=event.order_key,
        targets=table.targets(event.outboxes),
    )


def _change(change: Change, table: OutboxTable, suffixes: Iterator[str]) -> WrittenChange:
    fingerprint = change.fingerprint
    if fingerprint is None:
        return WrittenChange(course_id=change.course_id, problem=change.problem)
    return WrittenChange(
        course_id=change.course_id,
        head=fingerprint.head(),
        sequence=fingerprint.sequence,
        last_event=fingerprint.event or NO_EVENT.decode(),
        tail=fingerprint.tail(),
        live=change.live,
        event=_event(change.event, table, suffixes),
    )
