"""The catalogue: the fingerprints of one integration's epoch, and the commits that move them."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, cast

import msgspec

from service.domain.errors import (
    EpochEndedError,
    LeaseLostError,
    NotFoundError,
    StaleSubscriptionsError,
)
from service.domain.fingerprint import DELETED, NO_EVENT, Fingerprint, unpack
from service.domain.identifiers import EVENT_PREFIX
from service.domain.subscriptions import Lane
from service.storage import keys
from service.storage.counters import Counters, flatten
from service.storage.ids import event_suffixes
from service.storage.lanes import RENDERINGS
from service.storage.leases import Lease
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


class CourseRow(msgspec.Struct, frozen=True, kw_only=True):
    """A course as listed; `sequence` and `last_event_id` are None before its first event."""

    id: str
    state: str
    remote_id: str | None = None
    origin_id: str | None = None
    sequence: int | None = None
    last_event_id: str | None = None
    quarantine_reason: str | None = None


class ScanPlace(msgspec.Struct, frozen=True):
    """A place in a catalogue: a scan's cursor, and the course behind which to go on among those
    that the scan finds there."""

    cursor: int
    behind: str = ""


class LaneTable:
    """The lanes that one script call names, numbered from 1."""

    def __init__(self) -> None:
        self._index: dict[str, int] = {}
        self._wakeable: list[str] = []

    def targets(self, lanes: Sequence[Lane]) -> str:
        """How a script is told the lanes of one event."""
        named = []
        for lane in lanes:
            index = self._index.get(lane.subscription_id)
            if index is None:
                index = self._index[lane.subscription_id] = len(self._index) + 1
                self._wakeable.append("1" if lane.active else "0")
            named.append(f"{index}{RENDERINGS[lane.rendering]}")
        return ",".join(named)

    def keys(self) -> list[str]:
        """The lanes' keys, in their numbering."""
        return [keys.lane(subscription_id) for subscription_id in self._index]

    def arguments(self) -> list[str]:
        """Each lane's id and whether it may be woken."""
        return [
            argument for pair in zip(self._index, self._wakeable, strict=True) for argument in pair
        ]


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

    async def live(self, integration_id: str, epoch: str) -> AsyncIterator[str]:
        """The ids of all live courses, in no order; one may come twice."""
        async for course_id, packed in self._redis.hscan_iter(
            keys.catalogue(integration_id, epoch), count=_SCAN_COUNT
        ):
            if packed[1:2] != DELETED:
                yield course_id.decode()

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
        changes: Sequence[Change],
        seen: bytes,
        increments: Counter[str],
    ) -> Committed:
        """Writes changes, their events, lanes and counters, all or nothing.

        Raises LeaseLostError, EpochEndedError or StaleSubscriptionsError, and then nothing was
        written. A repeated call finds the progress moved on and counts as a lost lease.
        """
        integration_id = lease.owned_id
        lanes = LaneTable()
        suffixes = iter(event_suffixes(sum(change.event is not None for change in changes)))
        written: list[str | int | bytes] = []
        for change in changes:
            written += _arguments(change, lanes, suffixes)
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
                *lanes.keys(),
            ],
            args=[
                lease.token,
                lease.duration_ms,
                epoch,
                subscriptions_version,
                progress.before,
                progress.after,
                seen,
                SEEN_LIFETIME_SECONDS,
                len(lanes.keys()),
                len(increments),
                integration_id,
                *lanes.arguments(),
                *flatten(increments),
                *written,
            ],
        )
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
        reasons = await self._reasons(integration_id, epoch, list(found))
        rows = [
            _row(course_id.decode(), packed, reason)
            for (course_id, packed), reason in zip(found.items(), reasons, strict=True)
        ]
        if place.cursor == 0:
            rows += await self._only_quarantined(integration_id, epoch)
        # A scan gives more than it is asked for; what is cut off comes when it is repeated.
        rows = sorted((row for row in rows if row.id > place.behind), key=lambda row: row.id)
        if len(rows) > limit:
            return rows[:limit], ScanPlace(place.cursor, rows[limit - 1].id)
        return rows, ScanPlace(cursor) if cursor else None

    async def row(self, integration_id: str, epoch: str, course_id: str) -> CourseRow:
        """One course. Raises NotFoundError."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.hget(keys.catalogue(integration_id, epoch), course_id)
            pipeline.hget(keys.quarantine(integration_id, epoch), course_id)
            packed, reason = await pipeline.execute()
        if packed is None and reason is None:
            raise NotFoundError(f"there is no course {course_id} of {integration_id}")
        return _row(course_id, packed, reason)

    async def _reasons(
        self, integration_id: str, epoch: str, course_ids: list[bytes]
    ) -> list[bytes | None]:
        if not course_ids:
            return []
        found = await self._redis.hmget(keys.quarantine(integration_id, epoch), course_ids)
        return cast("list[bytes | None]", found)

    async def _only_quarantined(self, integration_id: str, epoch: str) -> list[CourseRow]:
        """Courses whose records never decoded, so that no fingerprint is kept of them."""
        reasons = cast(
            "dict[bytes, bytes]",
            await self._redis.hgetall(keys.quarantine(integration_id, epoch)),
        )
        known = await self.read(integration_id, epoch, [name.decode() for name in reasons])
        return [
            _row(name.decode(), None, reason)
            for (name, reason), packed in zip(reasons.items(), known, strict=True)
            if packed is None
        ]


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


def _row(course_id: str, packed: bytes | None, reason: bytes | None) -> CourseRow:
    if packed is None:
        return CourseRow(
            id=course_id,
            state="quarantined",
            quarantine_reason=(reason or b"").decode(),
        )
    known = unpack(packed)
    state = "deleted" if known.deleted else "live"
    return CourseRow(
        id=course_id,
        state="quarantined" if reason is not None else state,
        remote_id=known.remote_id,
        origin_id=known.origin_id,
        sequence=known.sequence or None,
        last_event_id=EVENT_PREFIX + known.event if known.event else None,
        quarantine_reason=reason.decode() if reason is not None else None,
    )
