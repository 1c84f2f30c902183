"""Follows the end of the event log, once for all requests of this process that wait for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context
from itertools import islice
from typing import TYPE_CHECKING, Final

from redis.exceptions import RedisError

from service.domain.errors import TooManyListenersError
from service.domain.events.event import EventFilter, StoredEvent
from service.domain.events.identifiers import position_order
from service.logs import get_logger
from service.storage.events.event_log import START, EventLog, ReadPosition, read_event
from service.storage.redis import keys
from service.storage.redis.streams import await_stream

if TYPE_CHECKING:
    from redis.asyncio import Redis

MAX_LISTENERS: Final = 5_000  # requests of one process that wait at the same time
MAX_EVENTS: Final = 1_000  # newest events that are kept in memory
MAX_BYTES: Final = 8_388_608  # of their courses and facts
BLOCK_MS: Final = 2_000  # well below a connection's timeout for a response
GATHER_SECONDS: Final = 0.05  # between two wake-ups, in which events gather
GATHER_SECONDS_EACH: Final = 0.0002  # and per listener, because waking one takes about half of that
RETRY_SECONDS: Final = 1.0  # after Redis failed
LINGER_SECONDS: Final = 30.0  # for the next listener after the last one has left
_READ_AT_ONCE = 100
_CANCEL_SECONDS = 0.1  # between attempts to stop the reader

_log = get_logger("tail")


class Listener:
    """One request that waits; new events wake it, and so does the end of the follower."""

    def __init__(self, tail: Tail) -> None:
        self._tail = tail
        self._waking: asyncio.Future[None] | None = None

    @property
    def ended(self) -> bool:
        """Whether the follower has stopped, so that waiting is useless."""
        return self._tail.stopped

    def wake(self) -> None:
        """Ends a current wait."""
        if self._waking is not None and not self._waking.done():
            self._waking.set_result(None)

    async def wait(self, position: str, seconds: float) -> None:
        """Waits for events after `position`, at most `seconds`."""
        if self.ended or self._tail.is_past(position):
            return
        loop = asyncio.get_running_loop()
        self._waking = loop.create_future()
        alarm = loop.call_later(seconds, self.wake)
        try:
            await self._waking
        finally:
            alarm.cancel()
            self._waking = None


class Tail:
    """Reads new events while requests listen and keeps the newest in memory, so that thousands of
    listeners cost Redis as much as one.

    It keeps every event after the position `_begins`, up to `_ends`; listeners at earlier positions
    read the log itself. Both are None until the reader knows the end of the log.
    """

    def __init__(self, redis: Redis, log: EventLog) -> None:
        self._redis = redis
        self._log = log
        self._events: deque[StoredEvent] = deque()
        self._bytes = 0
        self._begins: str | None = None
        self._ends: str | None = None
        self._listeners: set[Listener] = set()
        self._reader: asyncio.Task[None] | None = None
        self._quiet_since = 0.0
        self.max_listeners = MAX_LISTENERS
        self.stopped = False

    @property
    def listeners(self) -> int:
        """The number of waiting requests."""
        return len(self._listeners)

    def check_room(self) -> None:
        """Raises TooManyListenersError if the limit is reached."""
        if self.listeners >= self.max_listeners:
            raise TooManyListenersError

    @contextmanager
    def listen(self) -> Iterator[Listener]:
        """A listener for new events."""
        listener = Listener(self)
        self._listeners.add(listener)
        if self._reader is None and not self.stopped:
            # In its own context: it serves other requests than the one that started it, whose id
            # must not be in its log lines.
            self._reader = asyncio.create_task(self._follow(), context=Context())
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            self._quiet_since = asyncio.get_running_loop().time()

    def is_past(self, position: str) -> bool:
        """Whether events after `position` are known."""
        return self._ends is not None and position_order(self._ends) > position_order(position)

    async def read(
        self, after: str, limit: int, wanted: EventFilter
    ) -> tuple[list[StoredEvent], ReadPosition]:
        """Like `EventLog.read`, from memory if that reaches back to `after`."""
        if (
            self._begins is None
            or self._ends is None
            or not position_order(self._begins)
            <= position_order(after)
            <= position_order(self._ends)
        ):
            events, place = await self._log.read(after, limit, wanted)
            if not place.more and self.is_past(place.position):
                # More events have come meanwhile, or the log has lost some that were read.
                await self._find_end()
            return events, place
        found: list[StoredEvent] = []
        for event in islice(self._events, self._first_behind(after), None):
            if wanted.takes(event):
                found.append(event)
                if len(found) == limit:
                    return found, ReadPosition(event.position, more=event.position != self._ends)
        return found, ReadPosition(self._ends, more=False)

    def stop(self) -> None:
        """Wakes all listeners for good."""
        self.stopped = True
        self._wake()

    async def close(self) -> None:
        """Stops the follower, and ends the reader."""
        self.stop()
        # The client swallows a cancellation while it connects.
        while (reader := self._reader) is not None and not reader.done():
            reader.cancel()
            await asyncio.wait({reader}, timeout=_CANCEL_SECONDS)

    def _first_behind(self, after: str) -> int:
        """The index in `_events` of the first one after `after`. Most listeners are near the
        end."""
        place = position_order(after)
        index = len(self._events)
        for event in reversed(self._events):
            if position_order(event.position) <= place:
                break
            index -= 1
        return index

    async def _follow(self) -> None:
        """The reader: runs until no request has listened for a while."""
        loop = asyncio.get_running_loop()
        failing = False
        try:
            while self._listeners or loop.time() - self._quiet_since < LINGER_SECONDS:
                try:
                    if self._ends is None or failing:
                        await self._find_end()
                    if not await self._advance():
                        await self._find_end()
                    failing = False
                except (RedisError, OSError) as error:
                    if not failing:
                        _log.warning("event log cannot be read", reason=type(error).__name__)
                    failing = True
                    await asyncio.sleep(RETRY_SECONDS)
        finally:
            self._reader = None
            self._begin_at(None)

    async def _advance(self) -> bool:
        """Reads new events, and waits for them; False if there were none."""
        known = self._ends
        entries = await await_stream(
            self._redis, keys.EVENTS, known or START, _READ_AT_ONCE, BLOCK_MS
        )
        if not entries:
            return False
        if self._ends != known:  # a listener found that the log had lost its end
            return True
        for entry_id, fields in entries:
            event = read_event(entry_id, fields)
            self._events.append(event)
            self._bytes += _size(event)
            self._ends = event.position
        while len(self._events) > MAX_EVENTS or self._bytes > MAX_BYTES:
            oldest = self._events.popleft()
            self._bytes -= _size(oldest)
            self._begins = oldest.position
        self._wake()
        if len(entries) < _READ_AT_ONCE:
            await asyncio.sleep(GATHER_SECONDS + GATHER_SECONDS_EACH * self.listeners)
        return True

    async def _find_end(self) -> None:
        """Finds the end of the log, or checks that the known end is still valid.

        It is not if the log ends earlier, as after a crash that cost Redis its last second, or if
        it was trimmed beyond the events that were read. Listeners then read the log itself, which
        handles both.
        """
        known = self._ends
        last, trimmed = await self._log.bounds()
        if self._ends != known:
            return  # another call continued meanwhile
        if known is None or not (
            position_order(trimmed) <= position_order(known) <= position_order(last)
        ):
            self._begin_at(last)

    def _begin_at(self, position: str | None) -> None:
        self._events.clear()
        self._bytes = 0
        self._begins = self._ends = position
        self._wake()

    def _wake(self) -> None:
        for listener in self._listeners:
            listener.wake()


def _size(event: StoredEvent) -> int:
    return len(event.facts) + len(event.course or b"")
