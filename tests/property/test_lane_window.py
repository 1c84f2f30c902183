"""The window over a lane, driven by a model of its sender: the lane is a list of entries that
vanish when they are settled, read in small parts, with the limits lowered so that they bite."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.domain import lane
from service.domain.lane import Entry, Window
from service.domain.subscriptions import Rendering

MAX_WAITING_PER_COURSE = 2
MAX_KNOWN = 10
READ = 3
PREPARED = 4
RETRY_MS = 100

COURSES = [f"course-{number}" for number in range(8)]


@pytest.fixture(scope="module", autouse=True)
def low_limits() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lane, "MAX_WAITING_PER_COURSE", MAX_WAITING_PER_COURSE)
        patch.setattr(lane, "MAX_KNOWN", MAX_KNOWN)
        yield


def position(number: int) -> str:
    return f"{1_795_424_000_000 + number}-0"


class Store:
    """What outlives a sender: the lane in its order, and what has failed and when it is due."""

    def __init__(self) -> None:
        self.lane: dict[str, Entry] = {}
        self.failing: dict[str, int] = {}
        self.appended = 0

    def append(self, course: str) -> None:
        self.appended += 1
        entry = Entry(position(self.appended), course, Rendering.FULL)
        self.lane[entry.position] = entry

    def read(self, after: str | None, count: int) -> list[Entry]:
        return [entry for entry in self.lane.values() if after is None or entry.position > after][
            :count
        ]

    def first_of(self, course: str) -> Entry:
        return next(entry for entry in self.lane.values() if entry.order_key == course)


class Sender:
    """Uses the window as a worker does that drains a lane."""

    def __init__(self, store: Store, concurrency: int) -> None:
        self.store = store
        self.concurrency = concurrency
        self.window = Window()
        self.prepared: list[Entry] = []
        self.in_flight: list[Entry] = []
        self.cursor: str | None = None
        self.exhausted = False
        for failed, due_at in store.failing.items():
            self.window.offer_failing(store.lane[failed], due_at)

    def prepare(self, now: int) -> None:
        while len(self.prepared) < PREPARED:
            entry = self.window.take(now)
            if entry is not None:
                self.take_out(entry)
            elif not self.read():
                break

    def take_out(self, entry: Entry) -> None:
        out = [one.order_key for one in (*self.prepared, *self.in_flight)]
        assert entry.order_key not in out, "two entries of one course are out"
        assert entry == self.store.first_of(entry.order_key), "an earlier one is undelivered"
        self.prepared.append(entry)

    def read(self) -> bool:
        if self.window.reread:
            self.window.restart()
            self.cursor, self.exhausted = None, False
        if self.exhausted or self.window.full:
            return False
        found = self.store.read(self.cursor, READ)
        for entry in found:
            self.window.offer(entry)
        if found:
            self.cursor = found[-1].position
        self.exhausted = len(found) < READ
        return bool(found)

    def send(self) -> None:
        while self.prepared and len(self.in_flight) < self.concurrency:
            self.in_flight.append(self.prepared.pop(0))

    def settle(self, entry: Entry) -> None:
        self.in_flight.remove(entry)
        del self.store.lane[entry.position]
        self.store.failing.pop(entry.position, None)
        self.window.settle(entry)
        self.recorded()

    def fail(self, entry: Entry, due_at: int) -> None:
        self.in_flight.remove(entry)
        self.store.failing[entry.position] = due_at
        self.window.retry(entry, due_at)
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
                self.settle(entry)
                delivered.append(entry)


class LaneMachine(RuleBasedStateMachine):
    """Events come, attempts end well or badly, senders come and go."""

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
        self.sender.settle(data.draw(st.sampled_from(self.sender.in_flight)))

    @precondition(lambda self: self.sender.in_flight)
    @rule(data=st.data(), delay=st.integers(0, RETRY_MS))
    def an_attempt_fails(self, data: st.DataObject, delay: int) -> None:
        self.sender.fail(data.draw(st.sampled_from(self.sender.in_flight)), self.now + delay)

    @rule(elapsed=st.integers(1, RETRY_MS))
    def time_passes(self, elapsed: int) -> None:
        self.now += elapsed

    @rule(concurrency=st.integers(1, 4))
    def another_sender_takes_over(self, concurrency: int) -> None:
        self.sender = Sender(self.store, concurrency)

    def finish(self) -> None:
        if not self.sender.in_flight:  # its turn is over; what came since is for the next one
            self.sender = Sender(self.store, self.sender.concurrency)
        self.sender.drain(self.now)

    @rule()
    def nothing_that_may_go_stays(self) -> None:
        """When the sender has nothing left to do, all that is on the lane waits for a retry of
        its own course."""
        self.finish()
        waiting = {self.store.lane[failed].order_key for failed in self.store.failing}
        assert {entry.order_key for entry in self.store.lane.values()} == waiting
        assert all(due_at > self.now for due_at in self.store.failing.values())
        assert self.sender.window.idle == (not self.store.lane)

    @invariant()
    def memory_is_bounded(self) -> None:
        assert len(self.sender.window._heads) <= MAX_KNOWN + READ
        behind = self.sender.window._behind.values()
        assert all(len(waiting) <= MAX_WAITING_PER_COURSE for waiting in behind)
        assert sum(map(len, behind)) < MAX_KNOWN

    def teardown(self) -> None:
        """Attempts succeed in the end: everything arrives, each course in its order."""
        self.now += RETRY_MS
        self.finish()
        assert self.store.lane == {}
        assert self.sender.window.idle


LaneMachine.TestCase.settings = settings(stateful_step_count=40)
TestLane = LaneMachine.TestCase


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=MAX_KNOWN - 1),
    st.lists(st.integers(1, 6), min_size=1, max_size=MAX_KNOWN),
    st.integers(1, 4),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_courses_that_fail_hold_up_no_other(broken, sound, concurrency, known_before, source):
    """As long as fewer courses fail than the window holds."""
    failing = {f"failing-{number}": events for number, events in enumerate(broken)}
    others = {f"sound-{number}": events for number, events in enumerate(sound)}
    events = [course for course, count in (failing | others).items() for _ in range(count)]
    source.shuffle(events)
    store = Store()
    for course in events:
        store.append(course)
    if known_before:
        Sender(store, concurrency).drain(0, frozenset(failing))
        for course in events:
            store.append(course)

    sender = Sender(store, concurrency)
    sender.drain(0, frozenset(failing))

    assert {entry.order_key for entry in store.lane.values()} == failing.keys()
    assert sum(map(len, sender.window._behind.values())) < MAX_KNOWN
    assert len(store.failing) == len(failing)


@given(st.lists(st.sampled_from(COURSES), max_size=40), st.integers(1, 4), st.data())
def test_deliveries_of_a_course_keep_the_order_of_the_lane(courses, concurrency, data):
    store = Store()
    for course in courses:
        store.append(course)
    order = list(store.lane.values())
    failures = dict.fromkeys(COURSES, 0) | data.draw(
        st.dictionaries(st.sampled_from(COURSES), st.integers(0, 3))
    )
    delivered: list[Entry] = []
    now = 0
    while store.lane:
        broken = frozenset(course for course, left in failures.items() if left > 0)
        delivered += Sender(store, concurrency).drain(now, broken)
        failures = {course: left - 1 for course, left in failures.items()}
        now += RETRY_MS

    assert sorted(delivered, key=lambda entry: entry.position) == order
    for course in COURSES:
        assert [entry for entry in delivered if entry.order_key == course] == [
            entry for entry in order if entry.order_key == course
        ]


def test_more_failing_courses_than_the_window_holds_stop_the_reading_and_not_the_retries():
    store = Store()
    for number in range(3 * MAX_KNOWN):
        store.append(f"failing-{number}")
    every = frozenset(entry.order_key for entry in store.lane.values())
    sender = Sender(store, 2)

    assert sender.drain(0, every) == []
    assert sender.window.full
    assert MAX_KNOWN <= len(store.failing) < MAX_KNOWN + READ
    assert len(sender.drain(RETRY_MS)) == 3 * MAX_KNOWN


def test_first_attempts_go_before_retries():
    window = Window()
    failing, fresh = (
        Entry(position(1), "a", Rendering.FULL),
        Entry(position(2), "b", Rendering.THIN),
    )
    window.offer_failing(failing, 5)
    window.offer(failing)
    window.offer(fresh)

    assert [window.take(4), window.take(4), window.take(5)] == [fresh, None, failing]
