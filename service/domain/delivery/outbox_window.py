"""Decides which entries of an outbox may be sent now: in order per course, without waiting for
other courses."""

from __future__ import annotations

from collections import deque

import msgspec
from xxhash import xxh3_64_hexdigest

from service.domain.delivery.subscription import Rendering
from service.domain.events.identifiers import position_order

MAX_WAITING_PER_COURSE = 100  # further entries of a course are read again after these
MAX_WAITING = 20_000  # entries over all courses: bounds memory for any length of the outbox


class Entry(msgspec.Struct, frozen=True):
    """One event on an outbox: its position in the log, its order key, its rendering. Two courses
    whose order keys collide wait for each other, without other effects. For an entry of a `replay`,
    `position` is its position among the replayed entries and `replayed` its event's position in the
    log.
    """

    position: str
    order_key: str
    rendering: Rendering
    replayed: str = ""
    replay: str = ""

    @property
    def event_position(self) -> str:
        """The event's position in the log."""
        return self.replayed or self.position


def order_key(integration_id: str, course_id: str) -> str:
    """The order key of an event: its course, or its integration if it is about that."""
    if not course_id:
        return integration_id
    return xxh3_64_hexdigest(f"{integration_id} {course_id}".encode())


class Window:
    """The part of an outbox that a sender reads: at most one entry per course is out at once.

    A course's head is its earliest entry. Entries are offered in the outbox's order, and a head
    that has never failed is a first attempt; those behind it wait here. A head that has failed is
    kept in the store and returns when its retry is due. Meanwhile the window takes no entries of
    its course; when the head is finished, the outbox is read again from its position (`rewind`). So
    the memory depends on how far the sender reads ahead, and neither on the length of the outbox
    nor on the number of failing courses.
    """

    def __init__(self, *, retries_first: bool = True) -> None:
        self.heads: dict[str, Entry] = {}  # ready or out
        self.behind: dict[str, deque[Entry]] = {}
        self.waiting = 0
        self._first: deque[Entry] = deque()
        self._retries: deque[Entry] = deque()
        self._failed: set[str] = set()  # courses whose heads failed in this window
        # course -> position from which its entries are read again
        self._passed_over: dict[str, str] = {}
        self._to_reread: set[str] = set()  # courses whose next entries are after `rewind`
        self._retries_next = retries_first
        self.rewind: str | None = None  # position from which entries are read again, inclusive

    @property
    def idle(self) -> bool:
        """Whether nothing is ready, waiting or out."""
        return not self.heads

    @property
    def first_attempts(self) -> int:
        """How many first attempts are ready."""
        return len(self._first)

    @property
    def retries(self) -> int:
        """How many retries are ready."""
        return len(self._retries)

    def restart(self) -> None:
        """The outbox will be read again from `rewind` or earlier."""
        self.rewind = None
        self._to_reread.clear()

    def offer(self, entry: Entry, *, failing: bool) -> None:
        """Adds the next entry of the outbox; `failing`: the store knows that its course's head
        failed.

        Offering an entry again changes nothing.
        """
        key = entry.order_key
        head = self.heads.get(key)
        if head is None:
            if failing or key in self._failed or key in self._to_reread:
                return
            self.heads[key] = entry
            self._first.append(entry)
        elif key not in self._passed_over:
            behind = self.behind.setdefault(key, deque())
            last = behind[-1] if behind else head
            if position_order(entry.position) <= position_order(last.position):
                return
            if len(behind) >= MAX_WAITING_PER_COURSE or self.waiting >= MAX_WAITING:
                self._passed_over[key] = entry.position
                return
            behind.append(entry)
            self.waiting += 1

    def offer_retry(self, entry: Entry) -> None:
        """Adds a head that has failed before and may be retried now."""
        key = entry.order_key
        if key in self.heads:
            return
        self._failed.discard(key)
        self.heads[key] = entry
        self._passed_over[key] = entry.position
        self._retries.append(entry)

    def take(self) -> Entry | None:
        """The next entry to send, or None: first attempts and retries in turn, so that each kind is
        sent."""
        if self._retries and (self._retries_next or not self._first):
            self._retries_next = False
            return self._retries.popleft()
        if self._first:
            self._retries_next = True
            return self._first.popleft()
        return None

    def finish(self, entry: Entry) -> None:
        """The entry is delivered or dead: the next of its course becomes the head."""
        key = entry.order_key
        behind = self.behind.get(key)
        if behind:
            head = self.heads[key] = behind.popleft()
            self.waiting -= 1
            self._first.append(head)
            return
        del self.heads[key]
        self.behind.pop(key, None)
        passed_over = self._passed_over.pop(key, None)
        if passed_over is None:
            return
        self._to_reread.add(key)
        if self.rewind is None or position_order(passed_over) < position_order(self.rewind):
            self.rewind = passed_over

    def fail(self, entry: Entry) -> None:
        """The entry has failed and waits in the store; its course waits with it."""
        key = entry.order_key
        del self.heads[key]
        self.waiting -= len(self.behind.pop(key, ()))
        self._passed_over.pop(key, None)
        self._failed.add(key)

    def unsent(self) -> str | None:
        """The earliest position from which the next turn must read the outbox again, if that is
        before the end of reading. Retries come back from the store."""
        positions = [
            entry.position
            for key, entry in self.heads.items()
            if self._passed_over.get(key) != entry.position
        ]
        if self.rewind is not None:
            positions.append(self.rewind)
        return min(positions, key=position_order, default=None)
