from __future__ import annotations

import pytest

from service.domain.delivery.outcome import Outcome, OutcomeClass
from service.domain.delivery.retry_schedule import DEFAULT_SCHEDULE, may_go_early, next_delay

MIDDLE = 0.5  # the random number that leaves a delay as scheduled


def failed(retry_after: float | None = None) -> Outcome:
    return Outcome(kind=OutcomeClass.STATUS, duration_ms=5, status=500, retry_after=retry_after)


def test_the_default_schedule_is_the_published_one():
    minute, hour = 60, 3600
    assert (
        5,
        5 * minute,
        30 * minute,
        2 * hour,
        5 * hour,
        10 * hour,
        14 * hour,
        20 * hour,
        24 * hour,
    ) == DEFAULT_SCHEDULE
    assert sum(DEFAULT_SCHEDULE) // hour == 75


@pytest.mark.parametrize("attempts", range(1, 10))
def test_each_failure_waits_for_its_own_delay(attempts):
    delay = next_delay(failed(), attempts, DEFAULT_SCHEDULE, MIDDLE)

    assert delay == DEFAULT_SCHEDULE[attempts - 1]


def test_after_the_last_delay_a_failure_is_final():
    assert next_delay(failed(), 10, DEFAULT_SCHEDULE, MIDDLE) is None
    assert next_delay(failed(), 11, DEFAULT_SCHEDULE, MIDDLE) is None
    assert next_delay(failed(30.0), 10, DEFAULT_SCHEDULE, MIDDLE) is None


def test_an_empty_schedule_means_one_attempt():
    assert next_delay(failed(), 1, (), MIDDLE) is None


@pytest.mark.parametrize(("unit_random", "factor"), [(0.0, 0.8), (MIDDLE, 1.0), (0.999999, 1.2)])
def test_delays_are_spread_by_a_fifth_either_way(unit_random, factor):
    delay = next_delay(failed(), 2, DEFAULT_SCHEDULE, unit_random)

    assert delay == pytest.approx(300 * factor, rel=1e-4)


@pytest.mark.parametrize(
    ("retry_after", "expected"),
    [
        (None, 300),
        (0.0, 300),
        (-5.0, 300),
        (299.0, 300),
        (301.0, 301),
        (86_400.0, 86_400),
        (1e9, 86_400),
        (float("inf"), 86_400),
        (float("nan"), 300),
    ],
)
def test_a_longer_retry_after_wins_up_to_a_day(retry_after, expected):
    assert next_delay(failed(retry_after), 2, DEFAULT_SCHEDULE, MIDDLE) == expected


def test_a_retry_after_never_shortens_a_delay_beyond_a_day():
    assert next_delay(failed(1e9), 1, (200_000,), MIDDLE) == 200_000


def test_only_a_delivery_counts_as_delivered():
    delivered = [kind for kind in OutcomeClass if Outcome(kind=kind, duration_ms=1).delivered]

    assert delivered == [OutcomeClass.DELIVERED]


def test_an_early_attempt_leaves_the_time_of_the_next_one_as_it_was():
    assert next_delay(failed(), 2, DEFAULT_SCHEDULE, MIDDLE, early=290.0) == 590


def test_probes_ahead_of_time_never_take_the_last_attempt_so_nothing_dies_sooner():
    now = due = 0.0
    attempts = 0
    while True:
        if now < due and not may_go_early(attempts, DEFAULT_SCHEDULE):
            now = due
        attempts += 1
        early = max(0.0, due - now)
        delay = next_delay(failed(), attempts, DEFAULT_SCHEDULE, MIDDLE, early=early)
        if delay is None:
            break
        due = now + delay
        now += 60  # probed every minute
    assert attempts == len(DEFAULT_SCHEDULE) + 1
    assert now >= sum(DEFAULT_SCHEDULE)
