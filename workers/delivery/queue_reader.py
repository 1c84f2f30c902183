"""One queue of an outbox, live or replayed: it finds the events that may be sent next."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Sequence

from service.domain.delivery.outbox_window import Entry, Window
from service.domain.delivery.retry_schedule import may_go_early
from service.domain.events.event import is_shown
from service.domain.events.identifiers import position_order
from service.storage.delivery.outboxes import (
    EXPIRED,
    NOT_GRANTED,
    READ,
    Failing,
    Outboxes,
    Queue,
    Recorded,
)
from service.storage.events.event_bodies import EventBodies
from workers.delivery.attempt_verdict import PendingAttempt
from workers.delivery.outbox_turn import OutboxTurn

PREPARED = 64  # events fetched ahead of being sent, at most ...
PREPARED_BYTES = 1_048_576  # ... and about this size of their bodies
USUAL_BYTES = 16_384  # of a body, until a larger one has been read
PROBE_CHOICE = 20  # retries among which a probe is chosen


class QueueReader:
    """Reads one queue during one turn.

    `prepare`, `prepare_probe` and `withdraw` return deliveries that must not be sent. The caller
    records them and passes each to `recorded`, like attempts; after deliveries of `prepare` and
    `prepare_probe`, it calls the method again.
    """

    def __init__(
        self,
        outboxes: Outboxes,
        bodies: EventBodies,
        turn: OutboxTurn,
        queue: Queue,
        *,
        start: str,
        scanned_at: int,
        failing: int,
        entries: Sequence[Entry] | None = None,
    ) -> None:
        """`start` is the position from which to read, after everything before it was read since
        `scanned_at`; `entries` are the first ones there if they are known, and `failing` is the
        number of failing courses."""
        self.scanned_at = scanned_at
        self.prepared: deque[PendingAttempt] = deque()
        self.in_flight = 0  # attempts in flight
        self._outboxes = outboxes
        self._bodies = bodies
        self._turn = turn
        self._subscription_id = turn.subscription.id
        self._queue = queue
        # Random, so that turns of one attempt each starve neither kind.
        self._window = Window(retries_first=random.random() < 0.5)
        self._tried: dict[str, Failing] = {}  # retries that are ready or out, by position
        self._largest = USUAL_BYTES
        self._ahead = self._limit()  # events to fetch ahead
        self._start = self._furthest = start
        self._first = entries
        self._exhausted = False
        self._any_failing = failing > 0
        # The time of the next retry that has not been fetched.
        self._next_retry: float = 0 if self._any_failing else math.inf

    @property
    def hungry(self) -> bool:
        """Whether all entries have been read and few of them can be sent."""
        few = len(self.prepared) <= self._ahead // 2
        return self._exhausted and few and not self._window.first_attempts

    def unsent(self) -> str:
        """The position from which the next turn must read."""
        unsent = self._window.unsent()
        if unsent is not None and _start_order(unsent) < _start_order(self._start):
            return unsent
        return self._start

    def look_again(self) -> None:
        """The queue may have grown since it was read."""
        self._exhausted = False

    async def prepare(self, *, recording: bool) -> list[Recorded]:
        """Fetches the events that may be sent next, and reads more entries if needed. It reads only
        as far as necessary, because most of an outbox may wait behind failures. `recording` means
        that attempts are being recorded, so that stored retries may be outdated."""
        looked = False
        while (
            len(self.prepared) <= self._ahead // 2
            and not self._is_read()
            and not self._turn.must_stop()
        ):
            await self._read_retries(recording=recording)
            more = False
            if not self._window.first_attempts and not (looked and self._busy()):
                more = looked = await self._read(recording=recording)
            entries = self._take(self._ahead - len(self.prepared))
            if entries:
                if unsendable := await self._fetch(entries):
                    return unsendable
            elif not more:
                break
        return []

    async def prepare_probe(self, *, recording: bool) -> list[Recorded]:
        """Fetches the one event that a parked outbox may try: a first attempt, or otherwise a
        retry, if possible of another course than the last probe's."""
        while not self.prepared and not self._turn.must_stop():
            while not self._window.first_attempts and await self._read(recording=recording):
                if self._turn.must_stop():
                    return []
            if not self._window.first_attempts and (chosen := await self._choose_retry()):
                self._tried[chosen.entry.position] = chosen
                self._window.offer_retry(chosen.entry)
            entries = self._take(1)
            if not entries:
                break
            if unsendable := await self._fetch(entries):
                return unsendable
        return []

    def withdraw(self) -> list[Recorded]:
        """Withdraws prepared events that the subscription's owner may no longer see."""
        grant = self._turn.permissions.grant
        if grant is None:
            return []
        withdrawn = [one for one in self.prepared if not is_shown(one.event.head, grant)]
        if withdrawn:
            self.prepared = deque(one for one in self.prepared if one not in withdrawn)
        return [self._dead(one.entry, NOT_GRANTED) for one in withdrawn]

    def begin(self) -> PendingAttempt:
        """Takes the next event to send."""
        self.in_flight += 1
        return self.prepared.popleft()

    def ended(self) -> None:
        """An attempt has ended; its outcome is not recorded yet."""
        self.in_flight -= 1

    def recorded(self, one: Recorded) -> None:
        """An attempt, or a dead delivery, is recorded: its course continues or waits."""
        self._tried.pop(one.entry.position, None)
        if one.result == "R":
            self._any_failing = True
            self._next_retry = min(self._next_retry, self._turn.redis_ms() + one.wait_ms)
            self._window.fail(one.entry)
        else:
            self._window.finish(one.entry)

    def retries_are_due(self) -> None:
        """All retries have been made due now."""
        self._next_retry = 0

    async def _choose_retry(self) -> Failing | None:
        now, schedule = self._turn.redis_ms(), self._turn.subscription.retry_schedule_seconds
        found, _ = await self._outboxes.retries(
            self._subscription_id, None, PROBE_CHOICE, self._queue
        )
        eligible = [
            one for one in found if one.due_at <= now or may_go_early(one.attempts, schedule)
        ]
        probed = self._turn.breaker.probed
        others = [one for one in eligible if one.entry.order_key != probed]
        return next(iter(others or eligible), None)

    def _is_read(self) -> bool:
        """Whether everything has been read and taken, until something is recorded or added."""
        window = self._window
        return (
            self._exhausted
            and self._next_retry == math.inf
            and not (window.first_attempts or window.retries)
            and window.rewind is None
        )

    def _limit(self) -> int:
        per_second = self._turn.subscription.rate_per_second
        most = max(1, min(PREPARED, PREPARED_BYTES // self._largest))
        return most if per_second is None else min(most, 1 + math.ceil(per_second))

    def _busy(self) -> bool:
        return bool(self.prepared or self.in_flight or self._window.retries)

    def _take(self, most: int) -> list[Entry]:
        entries: list[Entry] = []
        while len(entries) < most and (entry := self._window.take()) is not None:
            entries.append(entry)
        return entries

    async def _fetch(self, entries: Sequence[Entry]) -> list[Recorded]:
        """Prepares the entries; returns those whose events have expired or may not be seen."""
        events = await self._bodies.get_many(self._subscription_id, entries)
        for entry, event in zip(entries, events, strict=True):
            if event is not None:
                tried = self._tried.get(entry.position)
                attempts, sent, due_at = (
                    (tried.attempts, tried.sent, tried.due_at) if tried is not None else (0, 0, 0)
                )
                if len(event.body) > self._largest:
                    self._largest = len(event.body)
                    self._ahead = self._limit()
                self.prepared.append(PendingAttempt(entry, event, attempts, sent, due_at))
        expired = [one for one, event in zip(entries, events, strict=True) if event is None]
        return [self._dead(one, EXPIRED) for one in expired] + self.withdraw()

    def _dead(self, entry: Entry, reason: str) -> Recorded:
        """The record of a delivery that becomes dead unsent."""
        tried = self._tried.get(entry.position)
        attempts, sent = (tried.attempts, tried.sent) if tried is not None else (0, 0)
        return Recorded(entry=entry, attempts=attempts, sent=sent, result="D", reason=reason)

    async def _read_retries(self, *, recording: bool) -> None:
        """Fetches due retries, unless some are ready. Retries that are being recorded may be
        outdated."""
        now = self._turn.redis_ms()
        if self._window.retries or now < self._next_retry or recording:
            return
        found, later = await self._outboxes.retries(
            self._subscription_id, now, READ + len(self._tried), self._queue
        )
        self._next_retry = math.inf if later is None else later
        for one in found:
            if self._tried.setdefault(one.entry.position, one) is one:
                self._window.offer_retry(one.entry)

    async def _read(self, *, recording: bool) -> bool:
        """Reads more entries; False if no further entry could be sent."""
        window = self._window
        if window.rewind is not None and not recording and (self._exhausted or not self._busy()):
            if _start_order(window.rewind) < _start_order(self._start):
                self._start = window.rewind
            window.restart()
            self._exhausted = False
        if self._exhausted:
            return False
        if _start_order(self._start) < _start_order(self._furthest) and recording:
            return False  # it may complete a course whose entries are read: check again afterwards
        found, self._first = self._first, None
        if found is None:
            found = await self._outboxes.read(self._subscription_id, self._start, READ, self._queue)
        failing: set[str] = set()
        if self._any_failing:
            courses = list({entry.order_key for entry in found})
            failing = await self._outboxes.failing(self._subscription_id, courses, self._queue)
        for entry in found:
            window.offer(entry, failing=entry.order_key in failing)
        if found:
            self._start = f"({found[-1].position}"
            self._furthest = max(self._furthest, self._start, key=_start_order)
        self._exhausted = len(found) < READ
        return bool(found)


def _start_order(start: str) -> tuple[int, int]:
    """The sort key of a start of reading; one that excludes its entry comes after it."""
    if start == "-":
        return (0, 0)
    milliseconds, counter = position_order(start.removeprefix("("))
    return (milliseconds, counter + start.startswith("("))
