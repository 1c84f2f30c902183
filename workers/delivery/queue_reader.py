"""One queue of an outbox, live or replayed: which of its events may be sent next."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from service.bootstrap import Services
from service.domain.access.grants import Grant
from service.domain.delivery.outbox_window import Entry, Window
from service.domain.delivery.retry import may_go_early
from service.domain.delivery.subscription import Subscription
from service.domain.events.event import is_shown, render
from service.domain.events.identifiers import position_order
from service.storage.delivery.outboxes import EXPIRED, NOT_GRANTED, Failing, Queue, Recorded
from workers.delivery.attempt_verdict import Prepared

READ = 200  # entries read at once, and retries
PREPARED = 64  # events fetched ahead of being sent, at most ...
PREPARED_BYTES = 1_048_576  # ... and about so much of their bodies
USUAL_BYTES = 16_384  # of a body, until a larger one has been seen
PROBE_CHOICE = 20  # retries among which a probe is chosen


class Sender(msgspec.Struct, frozen=True):
    """What a track needs of whoever sends: the present by the clock of Redis, whether nothing
    more is to be begun, whether attempts are being recorded, what the subscription's owner may
    see, and to record that deliveries are given up unsent, for a reason."""

    now_ms: Callable[[], int]
    must_stop: Callable[[], bool]
    is_recording: Callable[[], bool]
    grant: Callable[[], Grant | None]
    give_up: Callable[[Sequence[Recorded], str], Awaitable[None]]


class Track:
    """Reads one queue during one turn."""

    def __init__(
        self,
        services: Services,
        subscription: Subscription,
        queue: Queue,
        sender: Sender,
        *,
        start: str,
        failing: int,
    ) -> None:
        """`start` is where reading starts; `failing` how many courses are."""
        self.prepared: deque[Prepared] = deque()
        self.in_flight = 0  # attempts that have begun and not ended
        self._services = services
        self._subscription = subscription
        self._queue = queue
        self._sender = sender
        # By chance, so that turns of one attempt each starve neither.
        self._window = Window(retries_first=random.random() < 0.5)
        self._tried: dict[str, Failing] = {}  # retries that are ready or out, by position
        self._largest = USUAL_BYTES
        self._start = self._furthest = start
        self._exhausted = False
        self._any_failing = failing > 0
        # When the next retry is due that has not been taken up.
        self._next_retry: float = 0 if self._any_failing else math.inf

    @property
    def hungry(self) -> bool:
        """Whether everything there is has been looked at and little of it can be sent."""
        few = len(self.prepared) <= self._ahead() // 2
        return self._exhausted and few and not self._window.first_attempts

    def unsent(self) -> str:
        """From where whoever sends next has to read."""
        unsent = self._window.unsent()
        if unsent is not None and _place(unsent) < _place(self._start):
            return unsent
        return self._start

    def look_again(self) -> None:
        """There may be more than when it was read."""
        self._exhausted = False

    async def prepare(self) -> None:
        """Fetches the events that may be sent next, reading on where needed; no further than to
        have something to do, for most of an outbox may wait behind failures."""
        looked = False
        while len(self.prepared) <= self._ahead() // 2 and not self._sender.must_stop():
            await self._read_retries()
            more = False
            if not self._window.first_attempts and not (looked and self._busy()):
                more = looked = await self._read()
            entries = self._take(self._ahead() - len(self.prepared))
            if entries:
                await self._fetch(entries)
            elif not more:
                return

    async def prepare_probe(self, probed: str) -> None:
        """Fetches the one event that a parked outbox may try: a first attempt, or else a retry,
        of another course than `probed`, the last probe's, where there is one."""
        while not self.prepared and not self._sender.must_stop():
            while not self._window.first_attempts and await self._read():
                if self._sender.must_stop():
                    return
            if not self._window.first_attempts and (chosen := await self._choose_retry(probed)):
                self._tried[chosen.entry.position] = chosen
                self._window.offer_retry(chosen.entry)
            entries = self._take(1)
            if not entries:
                return
            await self._fetch(entries)

    def begin(self) -> Prepared:
        """Takes the next event to send."""
        self.in_flight += 1
        return self.prepared.popleft()

    def ended(self) -> None:
        """An attempt has ended; what came of it is not recorded yet."""
        self.in_flight -= 1

    def recorded(self, one: Recorded) -> None:
        """An attempt has been recorded: its course moves on or waits."""
        self._tried.pop(one.entry.position, None)
        if one.result == "R":
            self._any_failing = True
            self._next_retry = min(self._next_retry, self._sender.now_ms() + one.wait_ms)
            self._window.fail(one.entry)
        else:
            self._window.settle(one.entry)

    def retries_are_due(self) -> None:
        """All retries have been made due now."""
        self._next_retry = 0

    async def _choose_retry(self, probed: str) -> Failing | None:
        now, schedule = self._sender.now_ms(), self._subscription.retry_schedule_seconds
        found, _ = await self._services.outboxes.retries(
            self._subscription.id, None, PROBE_CHOICE, self._queue
        )
        eligible = [
            one for one in found if one.due_at <= now or may_go_early(one.attempts, schedule)
        ]
        others = [one for one in eligible if one.entry.order_key != probed]
        return next(iter(others or eligible), None)

    def _ahead(self) -> int:
        """How many events are worth fetching ahead."""
        per_second = self._subscription.rate_per_second
        most = max(1, min(PREPARED, PREPARED_BYTES // self._largest))
        return most if per_second is None else min(most, 1 + math.ceil(per_second))

    def _busy(self) -> bool:
        return bool(self.prepared or self.in_flight or self._window.retries)

    def _take(self, most: int) -> list[Entry]:
        entries: list[Entry] = []
        while len(entries) < most and (entry := self._window.take()) is not None:
            entries.append(entry)
        return entries

    async def _fetch(self, entries: Sequence[Entry]) -> None:
        events = await self._services.outbox_events.get_many(
            self._subscription.id, [one.event_position for one in entries]
        )
        expired: list[Entry] = []
        for entry, event in zip(entries, events, strict=True):
            tried = self._tried.get(entry.position)
            attempts, sent, due_at = (
                (tried.attempts, tried.sent, tried.due_at) if tried is not None else (0, 0, 0)
            )
            if event is None:
                expired.append(entry)
            else:
                body = render(event, entry.rendering)
                self._largest = max(self._largest, len(body))
                self.prepared.append(Prepared(entry, event, body, attempts, sent, due_at))
        await self._give_up(expired, EXPIRED)
        await self.withdraw()

    async def withdraw(self) -> None:
        """Gives up what the subscription's owner may not see any more."""
        grant = self._sender.grant()
        withdrawn = [one for one in self.prepared if not is_shown(one.event, grant)]
        if withdrawn:
            self.prepared = deque(one for one in self.prepared if one not in withdrawn)
            await self._give_up([one.entry for one in withdrawn], NOT_GRANTED)

    async def _give_up(self, entries: Sequence[Entry], reason: str) -> None:
        if not entries:
            return
        recorded = []
        for entry in entries:
            tried = self._tried.pop(entry.position, None)
            attempts, sent = (tried.attempts, tried.sent) if tried is not None else (0, 0)
            recorded.append(
                Recorded(entry=entry, attempts=attempts, sent=sent, result="D", reason=reason)
            )
        await self._sender.give_up(recorded, reason)
        for entry in entries:
            self._window.settle(entry)

    async def _read_retries(self) -> None:
        """Takes up retries that are due, unless there are some; those being recorded may not
        be what they seem."""
        now = self._sender.now_ms()
        if self._window.retries or now < self._next_retry or self._sender.is_recording():
            return
        found, later = await self._services.outboxes.retries(
            self._subscription.id, now, READ + len(self._tried), self._queue
        )
        self._next_retry = math.inf if later is None else later
        for one in found:
            if self._tried.setdefault(one.entry.position, one) is one:
                self._window.offer_retry(one.entry)

    async def _read(self) -> bool:
        """Reads on; False if there is nothing more that could be sent."""
        window, recording = self._window, self._sender.is_recording()
        if window.rewind is not None and not recording and (self._exhausted or not self._busy()):
            if _place(window.rewind) < _place(self._start):
                self._start = window.rewind
            window.restart()
            self._exhausted = False
        if self._exhausted:
            return False
        if _place(self._start) < _place(self._furthest) and recording:
            return False  # it may settle what would be read: look again once it has
        outboxes, subscription_id = self._services.outboxes, self._subscription.id
        found = await outboxes.read(subscription_id, self._start, READ, self._queue)
        failing: set[str] = set()
        if self._any_failing:
            courses = list({entry.order_key for entry in found})
            failing = await outboxes.failing(subscription_id, courses, self._queue)
        for entry in found:
            window.offer(entry, failing=entry.order_key in failing)
        if found:
            self._start = f"({found[-1].position}"
            self._furthest = max(self._furthest, self._start, key=_place)
        self._exhausted = len(found) < READ
        return bool(found)


def _place(start: str) -> tuple[int, int]:
    """What starts of reading are compared by; one that leaves its entry out comes after it."""
    if start == "-":
        return (0, 0)
    milliseconds, counter = position_order(start.removeprefix("("))
    return (milliseconds, counter + start.startswith("("))
