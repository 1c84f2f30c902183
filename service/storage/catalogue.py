"""The catalogue: the fingerprints of one integration's epoch, and the commits that move them."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, cast

import msgspec

from service.domain.errors import (
    CoursesDifferError,
    EpochEndedError,
    LeaseLostError,
    NotFoundError,
    StaleSubscriptionsError,
)
from service.domain.fingerprint import NO_EVENT, Fingerprint, is_deleted, unpack
from service.domain.identifiers import EVENT_PREFIX
from service.domain.sifting import Mark
from service.domain.subscriptions import Lane
from service.domain.walking import Glimpse
from service.storage import keys
from service.storage.announcing import LaneTable
from service.storage.counters import Counters, flatten
from service.storage.hashes import read_field
from service.storage.ids import event_suffixes
from service.storage.leases import Lease
from service.storage.scans import ScanPlace, cut_page
from service.storage.scripts import load

if TYPE_CHECKING:
    from redis.asyncio import Redis

SEEN_LIFETIME_SECONDS = 6 * 3600
_SCAN_COUNT = 1_000


class NewEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event to append; `order_key` is what its lanes order it by."""

    type: str
    facts: bytes
    lanes: Sequence[Lane]
    order_key: str
    body: bytes = b""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One course to write: its new fingerprint, or the reason its record does not decode.

    `live` is what the change adds to the number of live courses.
    """

    course_id: str
    fingerprint: Fingerprint | None = None
    problem: str = ""
    live: int = 0
    event: NewEvent | None = None


class Progress(msgspec.Struct, frozen=True):
    """A walk's stored progress: what a commit builds on, and what it leaves."""

    before: bytes
    after: bytes


class Committed(msgspec.Struct, frozen=True):
    """What a commit did."""

    events: int
    lanes_woken: int


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What one commit writes besides the walk's progress.

    `seen` are digests of ids to add to the sweep's; `opening` is the event that says that a
    review has opened, appended if `marks` open one. Nothing is written unless all courses of
    `expected` are live and known by these digests.
    """

    expected: Glimpse | None = None
    changes: Sequence[Change] = ()
    marks: Sequence[Mark] = ()
    seen: bytes = b""
    opening: NewEvent | None = None


class CourseRow(msgspec.Struct, frozen=True, kw_only=True):
    """A course as listed; `sequence` and `last_event_id` are None before its first event."""

    id: str
    state: str
    remote_id: str | None = None
    origin_id: str | None = None
    sequence: int | None = None
    last_event_id: str | None = None
    quarantine_reason: str | None = None


def raise_for_status(status: bytes) -> None:
    """Raises the error that a committing script's refusal stands for."""
    if status == b"EPOCH":
        raise EpochEndedError
    if status == b"SUBSCRIPTIONS":
        raise StaleSubscriptionsError
    if status != b"OK":
        raise LeaseLostError


class Catalogue:
    """Reads and moves fingerprints."""

    def __init__(self, redis: Redis, counters: Counters) -> None:
        self._redis = redis
        self._counters = counters
        self._commit = load(redis, "commit")

    async def read(
        self, integration_id: str, epoch: str, course_ids: Sequence[str]
    ) -> list[bytes | None]:
        """The packed fingerprints of `course_ids`, None where a course is unknown."""
        if not course_ids:
            return []
        found = await self._redis.hmget(keys.catalogue(integration_id, epoch), list(course_ids))
        return cast("list[bytes | None]", found)

    async def live_among(
        self, integration_id: str, epoch: str, course_ids: Sequence[str]
    ) -> dict[str, Fingerprint]:
        """What is known of those among `course_ids` that are live."""
        stored = await self.read(integration_id, epoch, course_ids)
        known = {
            course_id: unpack(packed)
            for course_id, packed in zip(course_ids, stored, strict=True)
            if packed is not None
        }
        return {course_id: one for course_id, one in known.items() if not one.deleted}

    async def live(self, integration_id: str, epoch: str) -> AsyncIterator[str]:
        """The ids of all live courses, in no order; one may come twice."""
        async for course_id, packed in self._redis.hscan_iter(
            keys.catalogue(integration_id, epoch), count=_SCAN_COUNT
        ):
            if not is_deleted(packed):
                yield course_id.decode()

    async def any_live(self, integration_id: str, epoch: str, most: int) -> list[str]:
        """Some live courses, picked at random from `most`."""
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
        """The ids of courses whose records do not decode and that do not count as live: nobody
        knows them, or they are deleted."""
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

    async def seen(self, integration_id: str, walk_id: str) -> bytes:
        """The digests of the ids that a sweep has seen so far, 8 bytes each."""
        return cast("bytes", await self._redis.get(keys.seen(integration_id, walk_id)) or b"")

    async def commit(
        self,
        lease: Lease,
        *,
        epoch: str,
        walk_id: str,
        subscriptions_version: int,
        progress: Progress,
        batch: Batch,
        increments: Counter[str],
    ) -> Committed:
        """Writes changes, their events, lanes, marks and counters, all or nothing.

        Raises LeaseLostError, EpochEndedError, StaleSubscriptionsError or CoursesDifferError,
        and then nothing was written. A repeated call finds the progress moved on and counts as
        a lost lease.
        """
        integration_id = lease.owned_id
        lanes = LaneTable()
        opening = batch.opening
        count = sum(change.event is not None for change in batch.changes)
        suffixes = iter(event_suffixes(count + (opening is not None)))
        written: list[str | int | bytes] = []
        for mark in batch.marks:
            withheld = b"" if mark.withheld is None else mark.withheld.pack()
            written += [mark.course_id, mark.operation, withheld]
        for change in batch.changes:
            written += _arguments(change, lanes, suffixes)
        announced: list[str | bytes] = ["", "", "", ""]
        if opening is not None:
            announced = [opening.type, next(suffixes), opening.facts, lanes.targets(opening.lanes)]
        status, *counts = await self._commit(
            keys=[
                lease.key,
                keys.integration(integration_id),
                keys.catalogue(integration_id, epoch),
                keys.quarantine(integration_id, epoch),
                keys.seen(integration_id, walk_id),
                keys.EVENTS,
                keys.SUBSCRIPTIONS_VERSION,
                keys.TOTALS,
                await self._counters.key(),
                keys.due("lanes"),
                keys.claimed("lanes"),
                keys.waiting(integration_id, walk_id),
                keys.held(integration_id, epoch),
                keys.review(integration_id, epoch),
                keys.decided(integration_id, epoch),
                *lanes.keys(),
            ],
            args=[
                lease.token,
                lease.duration_ms,
                epoch,
                subscriptions_version,
                progress.before,
                progress.after,
                batch.seen,
                SEEN_LIFETIME_SECONDS,
                len(lanes.keys()),
                len(increments),
                integration_id,
                len(batch.marks),
                *announced,
                *_expectation(batch.expected),
                *lanes.arguments(),
                *flatten(increments),
                *written,
            ],
        )
        if status == b"DIFFER":
            raise CoursesDifferError([index - 1 for index in counts])
        raise_for_status(status)
        return Committed(*counts)

    async def rows(
        self, integration_id: str, epoch: str, limit: int, after: ScanPlace | None
    ) -> tuple[list[CourseRow], ScanPlace | None]:
        """At most `limit` courses from a place (None: the start), and the next place (None when
        done). A course that is added or removed meanwhile may be missed, none else."""
        place = after or ScanPlace(0)
        cursor, found = cast(
            "tuple[int, dict[bytes, bytes]]",
            await self._redis.hscan(
                keys.catalogue(integration_id, epoch), cursor=place.cursor, count=limit
            ),
        )
        notes = await self._notes(integration_id, epoch, list(found))
        rows = [
            _row(course_id.decode(), packed, note)
            for (course_id, packed), note in zip(found.items(), notes, strict=True)
        ]
        if place.cursor == 0:
            rows += await self._only_quarantined(integration_id, epoch)
        return cut_page(rows, place, cursor, limit)

    async def row(self, integration_id: str, epoch: str, course_id: str) -> CourseRow:
        """One course. Raises NotFoundError."""
        packed = await read_field(self._redis, keys.catalogue(integration_id, epoch), course_id)
        (note,) = await self._notes(integration_id, epoch, [course_id.encode()])
        if packed is None and note.reason is None:
            raise NotFoundError(f"there is no course {course_id} of {integration_id}")
        return _row(course_id, packed, note)

    async def _notes(self, integration_id: str, epoch: str, course_ids: list[bytes]) -> list[_Note]:
        if not course_ids:
            return []
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key in (keys.quarantine, keys.held, keys.decided):
                pipeline.hmget(key(integration_id, epoch), course_ids)
            reasons, held, decided = await pipeline.execute()
        return [
            _Note(reason, waits is not None or is_decided is not None)
            for reason, waits, is_decided in zip(reasons, held, decided, strict=True)
        ]

    async def _only_quarantined(self, integration_id: str, epoch: str) -> list[CourseRow]:
        """Courses whose records never decoded, so that no fingerprint is kept of them."""
        reasons = cast(
            "dict[bytes, bytes]",
            await self._redis.hgetall(keys.quarantine(integration_id, epoch)),
        )
        known = await self.read(integration_id, epoch, [name.decode() for name in reasons])
        return [
            _row(name.decode(), None, _Note(reason, held=False))
            for (name, reason), packed in zip(reasons.items(), known, strict=True)
            if packed is None
        ]


def _expectation(expected: Glimpse | None) -> list[bytes]:
    """Joined, because hundreds of arguments cost more than what is done with them."""
    if expected is None:
        return [b"", b"", b""]
    ids = expected.course_ids
    lengths = struct.pack(f"<{len(ids)}I", *map(len, ids))
    return [b"".join(ids), lengths, b"".join(expected.digests)]


def _arguments(
    change: Change, lanes: LaneTable, suffixes: Iterator[str]
) -> list[str | int | bytes]:
    fingerprint, event = change.fingerprint, change.event
    if fingerprint is None:
        return [change.course_id, "Q", change.problem, *([""] * 10)]
    arguments: list[str | int | bytes] = [
        change.course_id,
        "P",
        fingerprint.head(),
        fingerprint.sequence,
        fingerprint.event or NO_EVENT,
        fingerprint.tail(),
        change.live,
    ]
    if event is None:
        return [*arguments, *([""] * 6)]
    return [
        *arguments,
        event.type,
        next(suffixes),
        event.facts,
        event.body,
        event.order_key,
        lanes.targets(event.lanes),
    ]


class _Note(msgspec.Struct, frozen=True):
    """Why a course's record does not decode, and whether a change of it is held."""

    reason: bytes | None
    held: bool


def _row(course_id: str, packed: bytes | None, note: _Note) -> CourseRow:
    reason = None if note.reason is None else note.reason.decode()
    if packed is None:
        return CourseRow(id=course_id, state="quarantined", quarantine_reason=reason)
    known = unpack(packed)
    state = "deleted" if known.deleted else "live"
    if reason is not None:
        state = "quarantined"
    elif note.held:
        state = "held"
    return CourseRow(
        id=course_id,
        state=state,
        remote_id=known.remote_id,
        origin_id=known.origin_id,
        sequence=known.sequence or None,
        last_event_id=EVENT_PREFIX + known.event if known.event else None,
        quarantine_reason=reason,
    )
