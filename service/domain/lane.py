"""Decides which entries of a lane may be sent now: in order per course, others unhindered."""

from __future__ import annotations

import heapq
from collections import deque

import msgspec

from service.domain.subscriptions import Rendering

MAX_WAITING_PER_COURSE = 100  # further entries of a course are read again when it is its turn
MAX_KNOWN = 20_000  # courses held at once, and entries: bounds memory however long the lane is


class Entry(msgspec.Struct, frozen=True):
    """One event on a lane: its position in the log, what it is ordered by, its rendering.

    Two courses whose order keys collide wait for each other; nothing else follows from that.
    """

    position: str
    order_key: str
    rendering: Rendering


class Window:
    """The part of a lane that a sender looks at: at most one entry per course is out at once.

    Entries are offered in the lane's order. Each course has a head, which is ready, out or
    waiting for a retry; the course's later entries wait behind it. Offering an entry again
    changes nothing, so the lane may be read again from its start at any time.
    """

    def __init__(self) -> None:
        self._heads: dict[str, Entry] = {}
        self._behind: dict[str, deque[Entry]] = {}
        self._ready: deque[Entry] = deque()
        self._retries: list[tuple[int, str, Entry]] = []
        self._known: set[str] = set()
        self._passed_over: set[str] = set()
        self.reread = False  # entries were passed over whose turn has come: `restart`

    @property
    def full(self) -> bool:
        """Whether no more courses can be taken in.

        Only courses count: entries waiting behind failing ones must not keep out others.
        """
        return len(self._heads) >= MAX_KNOWN

    @property
    def idle(self) -> bool:
        """Whether nothing is ready, waiting or out."""
        return not self._heads

    def restart(self) -> None:
        """The lane is going to be read, and offered, from its start again."""
        self._passed_over.clear()
        self.reread = False

    def offer(self, entry: Entry) -> None:
        """Takes in the next entry of the lane."""
        key = entry.order_key
        if entry.position in self._known or key in self._passed_over:
            return
        if key not in self._heads:
            self._known.add(entry.position)
            self._heads[key] = entry
            self._ready.append(entry)
            return
        behind = self._behind.setdefault(key, deque())
        if len(behind) >= MAX_WAITING_PER_COURSE or len(self._known) >= MAX_KNOWN:
            self._passed_over.add(key)
            return
        self._known.add(entry.position)
        behind.append(entry)

    def offer_failing(self, entry: Entry, due_at: int) -> None:
        """Takes in an entry that has failed before and is due again at `due_at` (epoch ms).

        To be called before any `offer`: what failed is the head of its course.
        """
        self._known.add(entry.position)
        self._heads[entry.order_key] = entry
        heapq.heappush(self._retries, (due_at, entry.position, entry))

    def take(self, now_ms: int) -> Entry | None:
        """The next entry to send at `now_ms`, or None. First attempts go before retries."""
        if self._ready:
            return self._ready.popleft()
        if self._retries and self._retries[0][0] <= now_ms:
            return heapq.heappop(self._retries)[2]
        return None

    def settle(self, entry: Entry) -> None:
        """The entry is delivered or dead: the next of its course becomes the head."""
        key = entry.order_key
        self._known.discard(entry.position)
        behind = self._behind.get(key)
        if behind:
            head = self._heads[key] = behind.popleft()
            self._ready.append(head)
            return
        del self._heads[key]
        self._behind.pop(key, None)
        if key in self._passed_over:
            self.reread = True

    def retry(self, entry: Entry, due_at: int) -> None:
        """The entry has failed and stays the head of its course until `due_at` (epoch ms)."""
        heapq.heappush(self._retries, (due_at, entry.position, entry))
