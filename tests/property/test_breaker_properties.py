"""The breaker, driven by a model of an outbox: attempts begin only when it allows them, end well or
badly in any order, and the clock goes on."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from service.domain.delivery import push_rate as rate
from service.domain.delivery.circuit_breaker import (
    HOLD_MAX_MS,
    OFFLINE_FOR_MS,
    OFFLINE_MAX_MS,
    PARK_AFTER_MS,
    PARK_FAILURES,
    PROBE_FIRST_MS,
    PROBE_MAX_MS,
    Breaker,
    after_failure,
    after_own_failure,
    after_success,
    may_go_uncounted,
)
from service.domain.delivery.outcome import Outcome, OutcomeClass
from service.domain.delivery.subscription_disabling import disabling_reason

DAY = 86_400_000
START = 1_795_424_000_000
CHANCE = st.floats(0, 1, exclude_max=True)


def answered(status: int = 500, retry_after: float | None = None) -> Outcome:
    return Outcome(kind=OutcomeClass.STATUS, duration_ms=5, status=status, retry_after=retry_after)


FAILURES = st.one_of(
    st.builds(answered, st.sampled_from([400, 500, 502, 503, 504, 429])),
    st.builds(answered, st.just(503), st.floats(0, 200_000)),
    st.just(Outcome(kind=OutcomeClass.TIMEOUT, duration_ms=15_000)),
)
STEPS = st.lists(
    st.tuples(
        st.one_of(st.none(), FAILURES),  # None: it succeeds
        st.integers(0, 30_000),  # ms from when it may be sent until it is
        st.integers(0, 15_000),  # ms until it ends
        CHANCE,
    ),
    max_size=60,
)


def run(steps):
    """One attempt after the other, each as soon as allowed; yields what each did to the breaker."""
    breaker, now = Breaker(), START
    for number, (outcome, idle, took, chance) in enumerate(steps):
        sent_at = max(now, breaker.ready_at) + idle
        now = sent_at + took
        before = breaker
        if outcome is None:
            breaker = after_success(breaker)
        else:
            breaker = after_failure(breaker, outcome, f"c{number}", sent_at, now, chance)
        yield before, outcome, sent_at, now, breaker


@given(STEPS)
def test_an_outbox_is_parked_by_ten_failures_in_a_row_over_a_minute_and_by_nothing_less(steps):
    row: list[int] = []
    for before, outcome, _, now, after in run(steps):
        if outcome is None:
            row = []
            assert not after.parked
            assert after.failures == 0
            continue
        row.append(now)
        assert (after.failures, after.failing_since) == (len(row), row[0])
        assert after.parked == (
            before.parked or (len(row) >= PARK_FAILURES and now - row[0] >= PARK_AFTER_MS)
        )


@given(STEPS)
def test_probes_grow_from_five_seconds_to_five_minutes_apart(steps):
    for before, outcome, _, now, after in run(steps):
        if outcome is None or not after.parked:
            continue
        wait = after.probe_at - now
        assert 0.8 * PROBE_FIRST_MS - 1 <= wait <= 1.2 * PROBE_MAX_MS
        if before.parked:
            assert after.probes == before.probes + 1
            expected = min(PROBE_FIRST_MS * 2**after.probes, PROBE_MAX_MS)
            assert 0.8 * expected - 1 <= wait <= 1.2 * expected


@given(STEPS, st.integers(1, 100))
def test_an_outbox_that_fails_takes_up_fewer_connections_and_a_parked_one_a_single_one(steps, most):
    for _, _, _, _, after in run(steps):
        allowed = after.concurrency(most)
        assert 1 <= allowed <= most
        assert allowed == most if after.failures == 0 else True
        assert allowed == 1 if after.parked else True


@given(STEPS)
def test_a_hold_is_never_shortened_by_what_fails_later(steps):
    for before, outcome, _, now, after in run(steps):
        assert after.held_until >= before.held_until
        if outcome is None:
            assert after.held_until == before.held_until
        elif outcome.retry_after is not None:
            assert after.held_until - now <= 86_400_000 or after.held_until == before.held_until
        else:
            assert after.held_until - now <= 1.2 * HOLD_MAX_MS or (
                after.held_until == before.held_until
            )


@given(STEPS)
def test_the_breaker_survives_being_stored(steps):
    for *_, after in run(steps):
        assert msgspec.json.decode(msgspec.json.encode(after), type=Breaker) == after


@given(st.lists(st.sampled_from([True, False, False]), min_size=1, max_size=300), CHANCE)
def test_one_that_refuses_some_courses_and_takes_others_is_never_disabled(answers, chance):
    """An hour apart, however long it goes on: a success ends the row."""
    breaker, now = Breaker(), START
    for number, accepted in enumerate([*answers, True] * 2):
        now += DAY // 24
        if accepted:
            breaker = after_success(breaker)
            continue
        breaker = after_failure(breaker, answered(), f"c{number}", now, now, chance)
        reason = disabling_reason(breaker, answered(), now)
        assert (reason is not None) == (
            breaker.failures >= 20 and now - breaker.failing_since >= 5 * DAY
        )


def test_ten_slowing_answers_at_once_hold_the_outbox_once():
    breaker = Breaker()
    for number in range(5):
        breaker = after_failure(breaker, answered(503), f"c{number}", START, START + 10, 0.5)
    assert (breaker.held_until, breaker.holds) == (START + 10 + 1_000, 1)
    later = breaker.held_until
    breaker = after_failure(breaker, answered(503), "c9", later, later + 10, 0.5)
    assert breaker.held_until == later + 10 + 2_000


def test_retry_after_holds_the_outbox_for_up_to_a_day_and_zero_not_at_all():
    for asked, held in ((30.0, 30_000), (1e9, DAY), (0.0, None)):
        breaker = after_failure(Breaker(), answered(500, asked), "c", START, START, 0.5)
        assert breaker.held_until == (0 if held is None else START + held)


def test_an_attempt_that_was_under_way_when_the_outbox_was_parked_is_no_probe():
    parked = Breaker(
        failures=12, failing_since=START, parked_at=START, probe_at=START + 5_000, probed="a"
    )
    after = after_failure(parked, answered(), "b", START - 1, START + 10, 0.5)
    assert (after.probes, after.probe_at, after.probed) == (0, START + 5_000, "a")
    after = after_failure(parked, answered(), "b", START + 5_000, START + 5_010, 0.5)
    assert (after.probes, after.probe_at, after.probed) == (1, START + 15_010, "b")


def test_gone_disables_at_once():
    breaker = after_failure(Breaker(), answered(410), "c", START, START, 0.5)
    assert disabling_reason(breaker, answered(410), START) == "the receiver answered 410 Gone"
    assert disabling_reason(breaker, answered(404), START) is None


@given(st.lists(CHANCE, min_size=1, max_size=200))
def test_failures_of_our_own_network_are_not_counted_for_an_hour_at_most(chances):
    breaker, now = Breaker(failures=3, failing_since=START), START
    for chance in chances:
        now = max(now, breaker.ready_at)
        assert may_go_uncounted(breaker, now) == (now - START < OFFLINE_FOR_MS)
        breaker = after_own_failure(breaker, now, now, chance)
        assert breaker.failures == 3
        assert 0 < breaker.held_until - now <= 1.2 * OFFLINE_MAX_MS
    unreachable = Outcome(kind=OutcomeClass.CONNECT, duration_ms=1)
    later = after_failure(breaker, unreachable, "c", now, now, 0.5)
    assert may_go_uncounted(later, START + OFFLINE_FOR_MS) is False
    assert after_failure(breaker, answered(), "c", now, now, 0.5).offline == 0
    assert after_success(breaker).offline == 0


# --- the rate ---------------------------------------------------------------------------------


@given(
    st.floats(0.001, 10_000),
    st.lists(st.integers(0, 60_000), min_size=1, max_size=200),
    st.data(),
)
def test_no_more_is_sent_than_the_rate_allows_however_often_the_outbox_changes_hands(
    per_second, waits, data
):
    now = START
    bucket = rate.full(per_second, now)
    sent: list[int] = []
    for wait in waits:
        now += wait
        bucket, more = rate.take(bucket, per_second, now)
        if more == 0:
            sent.append(now)
        else:
            assert rate.take(bucket, per_second, now + more)[1] == 0, "the wait was long enough"
        if data.draw(st.booleans()):
            bucket = msgspec.json.decode(msgspec.json.encode(bucket), type=rate.Bucket)
    burst = max(1.0, per_second)
    for first in range(len(sent)):
        elapsed = (sent[-1] - sent[first]) / 1000
        assert len(sent) - first <= burst + elapsed * per_second + 1e-6


def test_a_clock_that_went_back_neither_refills_nor_empties():
    bucket, _ = rate.take(rate.full(2.0, START), 2.0, START)
    assert rate.take(bucket, 2.0, START - 5_000) == (rate.Bucket(0.0, START - 5_000), 0)
