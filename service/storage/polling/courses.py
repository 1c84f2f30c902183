"""Finds courses of one epoch by their ids and their states."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Literal, cast

import msgspec

from service.domain.courses.fingerprint import is_deleted, names_in, unpack
from service.domain.errors import NotFoundError
from service.domain.events.identifiers import EVENT_PREFIX
from service.storage.polling.catalogue import Catalogue
from service.storage.redis import keys
from service.storage.redis.scans import ScanCursor, cut_page

if TYPE_CHECKING:
    from redis.asyncio import Redis

CourseState = Literal["live", "deleted", "held", "quarantined"]
MAX_EXAMINED = 10_000  # courses that a filtered page examines, approximately
_EXAMINED_AT_ONCE = 1_000  # courses read in one command


class CourseRow(msgspec.Struct, frozen=True, kw_only=True):
    """A course in lists; `sequence` and `last_event_id` are None before its first event."""

    id: str
    state: CourseState
    remote_id: str | None = None
    origin_id: str | None = None
    sequence: int | None = None
    last_event_id: str | None = None
    quarantine_reason: str | None = None


class WantedCourses(msgspec.Struct, frozen=True, kw_only=True):
    """The filter of courses; None means any. One of the ids contains `part`, in any case of
    letters."""

    remote_id: str | None = None
    origin_id: str | None = None
    part: str | None = None
    states: Collection[CourseState] | None = None

    def only(self, state: CourseState) -> bool:
        """Whether only quarantined courses match."""
        return self.states is not None and {*self.states} == {state}

    def may_take(self, course_id: str, packed: bytes | None) -> bool:
        """Whether a course may match, by its ids and its fingerprint alone."""
        remote_id, origin_id = names_in(packed) if packed else (None, None)
        return (
            self.remote_id in {None, remote_id}
            and self.origin_id in {None, origin_id}
            and not (packed and self.only("deleted") and not is_deleted(packed))
            and (self.part is None or _contains(self.part, course_id, remote_id, origin_id))
        )


EVERY_COURSE = WantedCourses()


class Courses:
    """Reads the stored fingerprints and states of courses."""

    def __init__(self, redis: Redis, catalogue: Catalogue) -> None:
        self._redis = redis
        self._catalogue = catalogue

    async def page(
        self,
        integration_id: str,
        epoch: str,
        limit: int,
        after: ScanCursor | None = None,
        wanted: WantedCourses = EVERY_COURSE,
    ) -> tuple[list[CourseRow], ScanCursor | None]:
        """At most `limit` courses from a position (None: the start), and the next position (None at
        the end).

        Only a course that is added or removed meanwhile may be missed. It examines a bounded part
        of the courses, so it may return fewer, or none, although more follow.
        """
        place = after or ScanCursor(0)
        found: list[CourseRow] = []
        at_once, left = limit, limit
        if wanted != EVERY_COURSE:
            at_once, left = _EXAMINED_AT_ONCE, MAX_EXAMINED
        while True:
            cursor, rows = await self._look(integration_id, epoch, place.cursor, at_once, wanted)
            part, following = cut_page(rows, place, cursor, limit - len(found))
            found += part
            left -= at_once
            if following is None or len(found) == limit or left <= 0:
                return found, following
            place = following

    async def find(
        self,
        integration_id: str,
        epoch: str,
        course_id: str,
        wanted: WantedCourses = EVERY_COURSE,
    ) -> CourseRow | None:
        """The course with this id, None if it does not exist or does not match."""
        packed = await self._fingerprints(integration_id, epoch, [course_id])
        rows = await self._rows(integration_id, epoch, packed, wanted)
        return rows[0] if rows else None

    async def get(self, integration_id: str, epoch: str, course_id: str) -> CourseRow:
        """The course with this id. Raises NotFoundError."""
        found = await self.find(integration_id, epoch, course_id)
        if found is None:
            raise NotFoundError(f"there is no course {course_id} of {integration_id}")
        return found

    async def _look(
        self, integration_id: str, epoch: str, cursor: int, count: int, wanted: WantedCourses
    ) -> tuple[int, list[CourseRow]]:
        """The matching courses at a scan's cursor. Quarantined ones are found in their own hash."""
        only_quarantined = wanted.only("quarantined")
        key = keys.quarantine if only_quarantined else keys.catalogue
        following, found = cast(
            "tuple[int, dict[bytes, bytes]]",
            await self._redis.hscan(key(integration_id, epoch), cursor=cursor, count=count),
        )
        if only_quarantined:
            packed = await self._fingerprints(integration_id, epoch, _texts(found))
        else:
            packed = dict(zip(_texts(found), found.values(), strict=True))
            if cursor == 0:
                packed |= await self._without_fingerprint(integration_id, epoch)
        return following, await self._rows(integration_id, epoch, packed, wanted)

    async def _without_fingerprint(self, integration_id: str, epoch: str) -> dict[str, None]:
        """Courses whose records never decoded."""
        reasons = await self._redis.hkeys(keys.quarantine(integration_id, epoch))
        names = _texts(cast("list[bytes]", reasons))
        known = await self._fingerprints(integration_id, epoch, names)
        return {name: None for name, packed in known.items() if packed is None}

    async def _fingerprints(
        self, integration_id: str, epoch: str, course_ids: list[str]
    ) -> dict[str, bytes | None]:
        found = await self._catalogue.read(integration_id, epoch, course_ids)
        return dict(zip(course_ids, found, strict=True))

    async def _rows(
        self,
        integration_id: str,
        epoch: str,
        packed: Mapping[str, bytes | None],
        wanted: WantedCourses,
    ) -> list[CourseRow]:
        """The matching and known courses among those with these fingerprints."""
        chosen = {name: one for name, one in packed.items() if wanted.may_take(name, one)}
        if not chosen:
            return []
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key in (keys.quarantine, keys.held, keys.decided):
                pipeline.hmget(key(integration_id, epoch), list(chosen))
            notes = zip(*await pipeline.execute(), strict=True)
        rows = [
            _row(course_id, one, reason, held=held is not None or decided is not None)
            for (course_id, one), (reason, held, decided) in zip(chosen.items(), notes, strict=True)
            if one is not None or reason is not None
        ]
        return [row for row in rows if wanted.states is None or row.state in wanted.states]


def _texts(names: Collection[bytes]) -> list[str]:
    return [name.decode() for name in names]


def _contains(part: str, *ids: str | None) -> bool:
    wanted = part.casefold()
    return any(wanted in one.casefold() for one in ids if one)


def _row(course_id: str, packed: bytes | None, reason: bytes | None, *, held: bool) -> CourseRow:
    why = None if reason is None else reason.decode()
    if packed is None:
        return CourseRow(id=course_id, state="quarantined", quarantine_reason=why)
    known = unpack(packed)
    state: CourseState = "deleted" if known.deleted else "live"
    if why is not None:
        state = "quarantined"
    elif held:
        state = "held"
    return CourseRow(
        id=course_id,
        state=state,
        remote_id=known.remote_id,
        origin_id=known.origin_id,
        sequence=known.sequence or None,
        last_event_id=EVENT_PREFIX + known.event if known.event else None,
        quarantine_reason=why,
    )
