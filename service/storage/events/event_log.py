"""The event log: the ordered, retained list of all events."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, cast

import msgspec
from redis.exceptions import ResponseError

from service.domain.errors import EventsExpiredError, NotFoundError
from service.domain.events.event import EventFilter, EventHead, StoredEvent
from service.domain.events.identifiers import (
    event_id,
    event_position,
    is_backfilled,
    position_order,
    runs_of,
)
from service.storage.events.stored_bodies import decompressed
from service.storage.redis import keys
from service.storage.redis.keys import Key
from service.storage.redis.scripts import Script, run
from service.storage.redis.streams import StreamEntry, read_stream_back

if TYPE_CHECKING:
    from redis.asyncio import Redis

START: Final = "0-0"  # before any position that an event can have
EVERYTHING: Final = EventFilter()
MAX_SCANNED = 10_000  # entries that one filtered read examines, approximately
_SCAN_PAGE = 500
_LONG_RUN = 4  # adjacent entries, on average, from which on ranges cost less than a script


class ReadPosition(msgspec.Struct, frozen=True):
    """The end of a read of the log: a reader that continues after `position`, at any time, misses
    and repeats nothing. `more` is false if the log ended there."""

    position: str
    more: bool


class ReadEvents(Script[list[list[bytes] | None]]):
    """Reads the names and values of entries of the log, None for a missing one, with the `bodies`
    of the events or without.

    One command for each entry would cost the caller more than this script. For adjacent entries, a
    range costs Redis a quarter of it.
    """

    events: Key = keys.EVENTS
    positions: Sequence[str]
    bodies: bool


class ScanLog(Script[list[EventHead]]):
    """Reads at most `most` events without their bodies, so that a search through much of the log
    transfers little data. `first` and `last` are those of an XRANGE."""

    events: Key = keys.EVENTS
    first: str
    last: str
    most: int


class EventLog:
    """Reads the log; only the committing scripts append to it."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def get(self, identifier: str) -> StoredEvent:
        """One event. Raises NotFoundError if there is none with that id, or it was trimmed."""
        place = event_position(identifier)
        if place is not None:
            (event,) = await self.get_many([place[0]])
            if event is not None and event.id == identifier:
                return event
        raise NotFoundError(not_there(identifier))

    async def get_many(
        self, positions: Sequence[str], *, bodies: bool = True
    ) -> list[StoredEvent | None]:
        """The events at `positions`, None for one that the log no longer holds."""
        if not positions:
            return []
        if bodies and len(runs := runs_of(positions)) * _LONG_RUN <= len(positions):
            pages = cast(
                "list[list[StreamEntry]]",
                await asyncio.gather(*(self._redis.xrange(keys.EVENTS, *one) for one in runs)),
            )
            events = [read_event(*entry) for page in pages for entry in page]
            there = {event.position: event for event in events}
            return [there.get(position) for position in positions]
        found = await run(self._redis, ReadEvents(positions=positions, bodies=bodies))
        return [
            None
            if fields is None
            else read_event(position.encode(), dict(zip(fields[::2], fields[1::2], strict=True)))
            for position, fields in zip(positions, found, strict=True)
        ]

    async def read(
        self,
        after: str | None,
        limit: int,
        wanted: EventFilter = EVERYTHING,
        *,
        last: str | None = None,
    ) -> tuple[list[StoredEvent], ReadPosition]:
        """The requested events after the position `after` (None: from the oldest) up to `last`,
        oldest first, and the position to continue from.

        It reads a bounded part of the log, so it may return fewer than `limit` events, or none,
        although more follow. Raises EventsExpiredError if events after `after` have been trimmed.
        """
        events: list[StoredEvent] = []
        read_to = after
        scanned = 0
        while scanned < MAX_SCANNED:
            # If few events match, the pages grow, so that a long search takes few commands.
            count = min(max(limit - len(events), scanned), _SCAN_PAGE)
            page, trimmed = await self._page(read_to, count, last)
            for entry_id, fields in page:
                event = read_event(entry_id, fields)
                read_to = event.position
                if wanted.takes(event):
                    events.append(event)
                    if len(events) == limit:
                        return events, ReadPosition(read_to, more=True)
            scanned += len(page)
            if len(page) < count:
                if scanned == 0 and after is not None:
                    return [], ReadPosition(await self._within(after), more=False)
                return events, ReadPosition(read_to or trimmed, more=False)
        return events, ReadPosition(read_to or START, more=True)

    async def read_back(
        self,
        before: str | None,
        limit: int,
        wanted: EventFilter = EVERYTHING,
        *,
        after: str | None = None,
    ) -> tuple[list[StoredEvent], str | None]:
        """The requested events before the position `before` (None: from the end) and after `after`,
        newest first, and the position to continue from, None at the oldest.

        It reads a bounded part of the log, like `read`.
        """
        events: list[StoredEvent] = []
        last = before
        scanned = 0
        while scanned < MAX_SCANNED:
            count = min(max(limit - len(events), scanned), _SCAN_PAGE)
            page = await read_stream_back(self._redis, keys.EVENTS, last, count, after)
            for entry_id, fields in page:
                event = read_event(entry_id, fields)
                last = event.position
                if wanted.takes(event):
                    events.append(event)
                    if len(events) == limit:
                        return events, last
            scanned += len(page)
            if len(page) < count:
                return events, None
        return events, last

    async def scan(self, start: str, end: str, count: int) -> list[EventHead]:
        """At most `count` events from `start` to `end`, the oldest first: ids of an XRANGE, "("
        before the first excludes it."""
        return await run(self._redis, ScanLog(first=start, last=end, most=count))

    async def bounds(self) -> tuple[str, str]:
        """The position of the last event ever appended, and of the last one trimmed; both are
        `START` in a log that never held any."""
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.get(keys.EVENTS_TRIMMED)
            pipeline.xinfo_stream(keys.EVENTS)
            trimmed, about = await pipeline.execute(raise_on_error=False)
        for answer in (trimmed, about):
            if isinstance(answer, Exception) and not isinstance(answer, ResponseError):
                raise answer
        lost = trimmed.decode() if isinstance(trimmed, bytes) else START
        if isinstance(about, ResponseError):  # there is no log
            return lost, lost
        return about["last-generated-id"].decode(), lost

    async def trimmed(self) -> str:
        """The position of the last event ever trimmed."""
        found = cast("bytes | None", await self._redis.get(keys.EVENTS_TRIMMED))
        return START if found is None else found.decode()

    async def _page(
        self, after: str | None, count: int, last: str | None
    ) -> tuple[list[StreamEntry], str]:
        """Entries after `after` up to `last`, and the position of the last one trimmed."""
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.xrange(keys.EVENTS, f"({after}" if after else "-", last or "+", count=count)
            pipeline.get(keys.EVENTS_TRIMMED)
            page, trimmed = await pipeline.execute()
        lost = START if trimmed is None else trimmed.decode()
        if after is not None and position_order(after) < position_order(lost):
            raise EventsExpiredError(lost)
        return page, lost

    async def _within(self, position: str) -> str:
        """The position, or the end of a log that does not reach it because it lost its last second
        in a crash. A reader at that position has read all remaining events."""
        last, _ = await self.bounds()
        return min(position, last, key=position_order)


def not_there(identifier: str) -> str:
    """The error for an event that is not found."""
    place = event_position(identifier)
    if place is not None and is_backfilled(place[0]):
        return (
            f"event {identifier} was made by a backfill for one subscription: it is not in the "
            "event log; the deliveries of that subscription list it"
        )
    return f"there is no event {identifier}, or it is older than the retention"


def read_event(entry_id: bytes, fields: dict[bytes, bytes]) -> StoredEvent:
    """The event in an entry of the log."""
    previous = int(fields[b"p"])
    position = entry_id.decode()
    return StoredEvent(
        id=event_id(position, fields[b"x"].decode()),
        position=position,
        type=fields[b"t"].decode(),
        integration_id=fields[b"i"].decode(),
        course_id=fields[b"c"].decode(),
        sequence=int(fields[b"s"]),
        previous_sequence=previous or None,
        facts=fields[b"m"],
        course=decompressed(fields.get(b"b", b"")) or None,
    )
