"""Reads the events of outbox entries as bodies to push."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import Context

import msgspec

from service.domain.delivery.outbox_window import Entry
from service.domain.delivery.subscription import Rendering
from service.domain.events.event import EventHead, StoredEvent, render
from service.domain.events.identifiers import is_backfilled, position_order
from service.storage.events.body_cache import BodyCache
from service.storage.events.event_log import EventLog
from service.storage.events.lookup import OutboxEvents
from service.storage.redis.counters import Counters
from service.storage.redis.recent_reads import RecentReads

_OVERHEAD = 512  # bytes of a cached body besides its content and its facts


class RenderedEvent(msgspec.Struct, frozen=True):
    """An event to push. It contains the body, and not the stored course."""

    id: str
    head: EventHead
    body: bytes


# The identity of a body: position, order key and rendering of its event. The order key represents
# the event's course: a server that lost its last second, and whose clock went back, could use a
# position again.
_BodyKey = tuple[str, str, Rendering]
_Found = dict[_BodyKey, RenderedEvent | None]


class EventBodies:
    """Reads and renders each event once for all subscriptions of this process that receive it in
    the same rendering at about the same time.

    A reader of a body that is being read waits for that read. A body is cached for at most 5
    seconds (see `BodyCache`), and no longer than the run of its Redis server. It is not used once
    the log has been trimmed up to its event, which is noticed within a second. Events of backfills
    belong to one outbox and are never cached.
    """

    def __init__(self, log: EventLog, events: OutboxEvents, counters: Counters) -> None:
        self._log = log
        self._events = events
        self._counters = counters
        self._cache: BodyCache[RenderedEvent] = BodyCache()
        self._reads: dict[_BodyKey, asyncio.Task[_Found]] = {}
        self._trimmed = RecentReads(lambda _: log.trimmed())
        self._run = ""

    async def get_many(
        self, subscription_id: str, entries: Sequence[Entry]
    ) -> list[RenderedEvent | None]:
        """The events of a subscription's outbox entries, None for one that is no longer
        retained."""
        await self._follow_server()
        wanted = [(one.event_position, one.order_key, one.rendering) for one in entries]
        found: _Found = {}
        reads: set[asyncio.Task[_Found]] = set()
        missing: list[_BodyKey] = []
        own: list[_BodyKey] = []
        for key in wanted:
            if is_backfilled(key[0]):
                own.append(key)
            elif (kept := self._cache.get(key)) is not None:
                found[key] = kept
            elif (read := self._reads.get(key)) is not None:
                reads.add(read)
            else:
                missing.append(key)
        if missing:
            # In its own task, so that a cancelled turn fails none that waits for the same events.
            read = asyncio.create_task(self._read_shared(missing), context=Context())
            self._reads.update(dict.fromkeys(missing, read))
            reads.add(read)
        if found:
            trimmed = position_order(await self._trimmed.get("trimmed"))
            found = {
                key: None if position_order(key[0]) <= trimmed else event
                for key, event in found.items()
            }
        if reads:  # to gather nothing would wait for a turn of the loop
            shared = map(asyncio.shield, reads)
            # Nearly always there is one, which to gather would cost more than to await.
            for bodies in (
                [await next(shared)] if len(reads) == 1 else await asyncio.gather(*shared)
            ):
                found |= bodies
        if own:
            positions = [position for position, _, _ in own]
            found |= _rendered(own, await self._events.get_many(subscription_id, positions))
        return [found[key] for key in wanted]

    async def _follow_server(self) -> None:
        """Empties the cache when the server has been restarted, because it may have lost events."""
        run = await self._counters.key()
        if run != self._run:
            self._run = run
            self._cache.clear()

    async def _read_shared(self, wanted: Sequence[_BodyKey]) -> _Found:
        run = self._run
        try:
            found = _rendered(
                wanted, await self._log.get_many([position for position, _, _ in wanted])
            )
        finally:
            for key in wanted:
                self._reads.pop(key, None)
        if run == self._run:
            self._cache.put(
                (key, event, len(event.body) + len(event.head.facts) + _OVERHEAD)
                for key, event in found.items()
                if event is not None
            )
        return found


def _rendered(wanted: Sequence[_BodyKey], stored: Sequence[StoredEvent | None]) -> _Found:
    """The events under their keys."""
    return {
        key: None
        if event is None
        else RenderedEvent(
            event.id,
            EventHead(
                event.position, event.type, event.integration_id, event.course_id, event.facts
            ),
            render(event, key[2]),
        )
        for key, event in zip(wanted, stored, strict=True)
    }
