"""The event log: the ordered, retained list of all events."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, cast

from service.domain.errors import NotFoundError
from service.domain.events import StoredEvent
from service.domain.identifiers import event_id, event_position
from service.storage import keys
from service.storage.streams import StreamEntry, read_stream

if TYPE_CHECKING:
    from redis.asyncio import Redis

_SCAN_PAGE = 500
_SCAN_PAGES = 20  # most pages that one filtered read looks through


class EventLog:
    """Reads the log; only the committing scripts append to it."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def get(self, identifier: str) -> StoredEvent:
        """One event. Raises NotFoundError if there is none under that id, or no longer."""
        place = event_position(identifier)
        if place is not None:
            (event,) = await self.get_many([place[0]])
            if event is not None and event.id == identifier:
                return event
        raise NotFoundError(f"there is no event {identifier}, or it is older than the retention")

    async def get_many(self, positions: Sequence[str]) -> list[StoredEvent | None]:
        """The events at `positions`, None where the log no longer holds one."""
        if not positions:
            return []
        async with self._redis.pipeline(transaction=False) as pipeline:
            for position in positions:
                pipeline.xrange(keys.EVENTS, position, position)
            found = await pipeline.execute()
        return [_event(*entries[0]) if entries else None for entries in found]

    async def read(
        self,
        after: str | None,
        limit: int,
        *,
        newest_first: bool = False,
        event_types: Collection[str] | None = None,
        integration_id: str | None = None,
        course_id: str | None = None,
    ) -> tuple[list[StoredEvent], str | None]:
        """Events behind the position `after`, oldest first, and the position to go on from;
        with `newest_first` those before it, the newest first.

        A filtered read looks through a bounded part of the log, so it may return fewer than
        `limit` events, or none, together with a position to go on from.
        """
        events: list[StoredEvent] = []
        last = after
        for _ in range(_SCAN_PAGES):
            page = await self._page(last, newest_first=newest_first)
            for entry_id, fields in page:
                event = _event(entry_id, fields)
                last = event.position
                if (
                    (event_types is None or event.type in event_types)
                    and (integration_id is None or event.integration_id == integration_id)
                    and (course_id is None or event.course_id == course_id)
                ):
                    events.append(event)
                    if len(events) == limit:
                        return events, last
            if len(page) < _SCAN_PAGE:
                return events, None
        return events, last

    async def _page(self, after: str | None, *, newest_first: bool) -> list[StreamEntry]:
        if not newest_first:
            return await read_stream(self._redis, keys.EVENTS, after, _SCAN_PAGE)
        newest = f"({after}" if after else "+"
        found = await self._redis.xrevrange(keys.EVENTS, newest, "-", count=_SCAN_PAGE)
        return cast("list[StreamEntry]", found)


def _event(entry_id: bytes, fields: dict[bytes, bytes]) -> StoredEvent:
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
        course=fields[b"b"] or None,
    )
