"""The window over an outbox, driven by a model of its sender: the outbox is a list of entries that
vanish when they are finished, read in small parts, with the limits lowered so that they bite."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.domain.delivery import outbox_window as outbox
from service.domain.delivery.outbox_window import Entry, Window
from service.domain.delivery.subscription import Rendering

MAX_WAITING_PER_COURSE = 2
MAX_WAITING = 10
READ = 3
PREPARED = 4
RETRY_MS = 100

COURSES = [f"course-{number}" for number in range(8)]


@pytest.fixture(scope="module", autouse=True)
def low_limits() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbox, "MAX_WAITING_PER_COURSE", MAX_WAITING_PER_COURSE)
        patch.setattr(outbox, "MAX_WAITING", MAX_WAITING)
        yield


def position(number: int) -> str:
    return f"{1_795_424_000_000 + number}-0"


class Store:
    """What outlives a sender: the outbox in its order, which heads have failed and when they are
    due, and from where the next sender reads."""

    def __init__(self) -> None:
        self.outbox: dict[str, Entry] = {}
        self.failing: dict[str, tuple[Entry, int]] = {}
        self.start: str | None = None
        self.appended = 0

    def append(self, course: str) -> None:
        self.appended += 1
        entry = Entry(position(self.appended), course, Rendering.FULL)
        self.outbox[entry.position] = entry

    def read(self, start: str | None, count: int) -> list[Entry]:
        return [
            entry for entry in self.outbox.values() if start is None or entry.position >= start
        ][:count]

    def first_of(self, course: str) -> Entry:
        return next(entry for entry in self.outbox.values() if entry.order_key == course)


class Sender:
    """Uses the window as a worker does that drains an outbox."""

    def __init__(self, store: Store, concurrency: int) -> None:
        self.store = store
        self.concurrency = concurrency
        self.window = Window()
        self.prepared: list[Entry] = []
        self.in_flight: list[Entry] = []
        self.start, store.start = store.start, None
        self.exhausted = False
        self.reads = 0

    def hand_over(self) -> None:
        """Ends the turn with everything recorded; what is prepared goes unsent."""
        assert not self.in_flight
        unsent = self.window.unsent()
        starts = [start for start in (unsent, self.start) if start is not None]
        self.store.start = min(starts) if self.start is not None else None

    def prepare(self, now: int) -> None:
        while len(self.prepared) < PREPARED:
            if not self.window.retries:
                for course, (entry, due_at) in sorted(self.store.failing.items()):
                    if due_at <= now and course not in self.out():
                        self.window.offer_retry(entry)
            more = not self.window.first_attempts and self.read()
            entry = self.window.take()
            if entry is not None:
                self.take_out(entry)
            elif not more:
                break

    def prepare_probe(self) -> None:
        """What a parked outbox tries: one event, whenever it is due."""
        while not self.window.first_attempts and self.read():
            pass
        if not self.window.first_attempts and self.store.failing:
            entry, _ = next(iter(self.store.failing.values()))
            self.window.offer_retry(entry)
        entry = self.window.take()
        if entry is not None:
            self.take_out(entry)

    def out(self) -> list[str]:
        return [one.order_key for one in (*self.prepared, *self.in_flight)]

    def take_out(self, entry: Entry) -> None:
        assert entry.order_key not in self.out(), "two entries of one course are out"
        assert entry == self.store.first_of(entry.order_key), "an earlier one is undelivered"
        self.prepared.append(entry)

    def read(self) -> bool:
        rewind = self.window.rewind
        busy = self.prepared or self.in_flight or self.window.retries
        if rewind is not None and (self.exhausted or not busy):
            if self.start is not None and rewind < self.start:
                self.start = rewind
            self.window.restart()
            self.exhausted = False
        if self.exhausted:
            return False
        self.reads += 1
        found = self.store.read(self.start, READ)
        for entry in found:
            self.window.offer(entry, failing=entry.order_key in self.store.failing)
        if found:
            self.start = found[-1].position + "~"
        self.exhausted = len(found) < READ
        return bool(found)

    def send(self) -> None:
        while self.prepared and len(self.in_flight) < self.concurrency:
            self.in_flight.append(self.prepared.pop(0))

    def finish(self, entry: Entry) -> None:
        self.in_flight.remove(entry)
        del self.store.outbox[entry.position]
        self.store.failing.pop(entry.order_key, None)
        self.window.finish(entry)
        self.recorded()

    def fail(self, entry: Entry, due_at: int) -> None:
        self.in_flight.remove(entry)
        self.store.failing[entry.order_key] = (entry, due_at)
        self.window.fail(entry)
        self.recorded()

    def recorded(self) -> None:
        if not self.prepared:
            self.exhausted = False

    def drain(self, now: int, broken: frozenset[str] = frozenset()) -> list[Entry]:
        """Sends all that is due at `now`, in order of answers; every course in `broken` fails."""
        delivered: list[Entry] = []
        while True:
            self.prepare(now)
            self.send()
            if not self.in_flight:
                return delivered
            entry = self.in_flight[-1]  # answers overtake each other
            if entry.order_key in broken:
                self.fail(entry, now + RETRY_MS)
            else:
                self.finish(entry)
                delivered.append(entry)


class OutboxMachine(RuleBasedStateMachine):
    """Events come, attempts end well or badly, outboxes are held and parked, senders come and
    go."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store()
        self.now = 0
        self.sender = Sender(self.store, concurrency=2)

    @rule(courses=st.lists(st.sampled_from(COURSES), min_size=1, max_size=16))
    def events_come(self, courses: list[str]) -> None:
        for course in courses:
            self.store.append(course)

    @rule()
    def the_sender_goes_on(self) -> None:
        self.sender.prepare(self.now)
        self.sender.send()

    @precondition(lambda self: self.sender.in_flight)
    @rule(data=st.data())
    def an_attempt_ends_for_good(self, data: st.DataObject) -> None:
        self.sender.finish(data.draw(st.sampled_from(self.sender.in_flight)))

    @precondition(lambda self: self.sender.in_flight)
    @rule(data=st.data(), delay=st.integers(0, RETRY_MS))
    def an_attempt_fails(self, data: st.DataObject, delay: int) -> None:
        self.sender.fail(data.draw(st.sampled_from(self.sender.in_flight)), self.now + delay)

    @rule(elapsed=st.integers(1, RETRY_MS))
    def time_passes(self, elapsed: int) -> None:
        self.now += elapsed

    @rule(concurrency=st.integers(1, 4))
    def the_sender_dies_and_another_takes_over(self, concurrency: int) -> None:
        self.sender = Sender(self.store, concurrency)

    @precondition(lambda self: not self.sender.in_flight)
    @rule(concurrency=st.integers(1, 4))
    def the_outbox_is_held_and_handed_over(self, concurrency: int) -> None:
        """As by a hold, by parking, by disabling, by an edit or by the end of a turn."""
        self.sender.hand_over()
        self.sender = Sender(self.store, concurrency)

    @precondition(lambda self: not self.sender.in_flight)
    @rule(succeeds=st.booleans())
    def a_probe_is_sent(self, succeeds: bool) -> None:
        self.sender.hand_over()
        self.sender = Sender(self.store, 1)
        self.sender.prepare_probe()
        self.sender.send()
        for entry in list(self.sender.in_flight):
            if succeeds:
                self.sender.finish(entry)
                self.store.failing = {
                    course: (waiting, 0) for course, (waiting, _) in self.store.failing.items()
                }
            else:
                self.sender.fail(entry, self.now + RETRY_MS)
        self.sender.hand_over()
        self.sender = Sender(self.store, 2)

    def finish(self) -> None:
        if not self.sender.in_flight:  # its turn is over; what came since is for the next one
            self.sender.hand_over()
            self.sender = Sender(self.store, self.sender.concurrency)
        self.sender.drain(self.now)

    @rule()
    def nothing_that_may_go_stays(self) -> None:
        """When the sender has nothing left to do, all that is on the outbox waits for a retry of
        its own course."""
        self.finish()
        assert {
            entry.order_key for entry in self.store.outbox.values()
        } == self.store.failing.keys()
        assert all(due_at > self.now for _, due_at in self.store.failing.values())
        assert self.sender.window.idle

    @invariant()
    def memory_is_bounded(self) -> None:
        window = self.sender.window
        assert len(window.heads) <= PREPARED + 4 + READ + window.retries
        behind = window.behind.values()
        assert all(len(waiting) <= MAX_WAITING_PER_COURSE for waiting in behind)
        assert sum(map(len, behind)) == window.waiting <= MAX_WAITING

    def teardown(self) -> None:
        """Attempts succeed in the end: everything arrives, each course in its order."""
        self.now += RETRY_MS
        self.finish()
        assert self.store.outbox == {}
        assert self.sender.window.idle


OutboxMachine.TestCase.settings = settings(stateful_step_count=40)
TestOutbox = OutboxMachine.TestCase


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=30),
    st.lists(st.integers(1, 6), min_size=1, max_size=10),
    st.integers(1, 4),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_courses_that_fail_hold_up_no_other(broken, sound, concurrency, known_before, source):
    failing = {f"failing-{number}": events for number, events in enumerate(broken)}
    others = {f"sound-{number}": events for number, events in enumerate(sound)}
    events = [course for course, count in (failing | others).items() for _ in range(count)]
    source.shuffle(events)
    store = Store()
    for course in events:
        store.append(course)
    if known_before:
        earlier = Sender(store, concurrency)
        earlier.drain(0, frozenset(failing))
        earlier.hand_over()
        for course in events:
            store.append(course)

    Sender(store, concurrency).drain(0, frozenset(failing))

    assert {entry.order_key for entry in store.outbox.values()} == failing.keys()
    assert len(store.failing) == len(failing)


@given(st.lists(st.sampled_from(COURSES), max_size=40), st.integers(1, 4), st.data())
def test_deliveries_of_a_course_keep_the_order_of_the_outbox(courses, concurrency, data):
    store = Store()
    for course in courses:
        store.append(course)
    order = list(store.outbox.values())
    failures = dict.fromkeys(COURSES, 0) | data.draw(
        st.dictionaries(st.sampled_from(COURSES), st.integers(0, 3))
    )
    delivered: list[Entry] = []
    now = 0
    while store.outbox:
        broken = frozenset(course for course, left in failures.items() if left > 0)
        sender = Sender(store, concurrency)
        delivered += sender.drain(now, broken)
        if data.draw(st.booleans()):
            sender.hand_over()
        failures = {course: left - 1 for course, left in failures.items()}
        now += RETRY_MS

    assert sorted(delivered, key=lambda entry: entry.position) == order
    for course in COURSES:
        assert [entry for entry in delivered if entry.order_key == course] == [
            entry for entry in order if entry.order_key == course
        ]


def test_a_long_outbox_behind_failures_is_not_read_again_by_every_sender():
    store = Store()
    for number in range(300):
        store.append(f"failing-{number % 3}")
    first = Sender(store, 2)
    first.drain(0, frozenset(f"failing-{number}" for number in range(3)))
    first.hand_over()
    store.append("sound")

    second = Sender(store, 2)
    assert [entry.order_key for entry in second.drain(1)] == ["sound"]
    assert second.reads <= 2


def test_first_attempts_and_retries_take_turns():
    window = Window()
    for number in range(3):
        window.offer_retry(Entry(position(number), f"failing-{number}", Rendering.FULL))
        window.offer(Entry(position(10 + number), f"sound-{number}", Rendering.FULL), failing=False)
    window.offer(Entry(position(13), "sound-3", Rendering.FULL), failing=False)

    kinds = [window.take().order_key.partition("-")[0] for _ in range(7)]
    assert kinds == ["failing", "sound"] * 3 + ["sound"]
    assert window.take() is None


def test_positions_of_one_millisecond_are_ordered_by_their_counter():
    window = Window()
    window.offer(Entry("1795424000000-9", "a", Rendering.FULL), failing=False)
    window.offer(Entry("1795424000000-10", "a", Rendering.FULL), failing=False)
    first = window.take()
    window.finish(first)
    assert window.take().position == "1795424000000-10"
