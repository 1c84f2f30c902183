from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.observability import metrics
from service.domain.observability.history import (
    FAMILIES,
    MINUTE_MS,
    MINUTES_IN_HOUR,
    Period,
    Sample,
    hours_of,
    increases_between,
    minutes_of,
    quantiles,
    series_at,
)

HOUR_MS = MINUTES_IN_HOUR * MINUTE_MS
BEGIN = 500_000 * HOUR_MS
EVENTS = "events_total"

moves = st.dictionaries(
    st.sampled_from([EVENTS, "polls_total"]),
    st.dictionaries(st.sampled_from("abc"), st.integers(1, 1_000), min_size=1),
)


def sample(
    minute: int, counters: dict, *, run: str = "r", late: int = 0, **gauges: float
) -> Sample:
    return Sample(at=BEGIN + minute * MINUTE_MS + late, run=run, counters=counters, gauges=gauges)


def counted(increases: list[dict], *, run: str = "r", begin: int = 0) -> list[Sample]:
    """Samples, minute by minute, of counters that move like that after the first of them."""
    total: dict[str, Counter] = {}
    samples = [sample(begin, {}, run=run)]
    for minute, changes in enumerate(increases, begin + 1):
        for name, counts in changes.items():
            total[name] = total.get(name, Counter()) + Counter(counts)
        samples.append(sample(minute, dict(total), run=run))
    return samples


def summed(periods) -> dict[str, Counter]:
    total: dict[str, Counter] = {}
    for period in periods:
        for name, counts in (period.increases or {}).items():
            total[name] = total.get(name, Counter()) + Counter(counts)
    return total


@given(st.lists(moves))
def test_minutes_are_the_increases_of_counters(increases):
    first, *minutes = minutes_of(counted(increases))
    assert first.increases is None
    assert [minute.increases for minute in minutes] == increases
    assert [minute.end for minute in minutes] == [
        BEGIN + number * MINUTE_MS for number in range(1, len(increases) + 1)
    ]


@given(st.lists(moves, min_size=2), st.data())
def test_a_missed_minute_is_a_gap_and_what_was_counted_in_it_appears_nowhere_else(increases, data):
    missed = data.draw(st.integers(1, len(increases) - 1))
    samples = counted(increases)
    del samples[missed]
    known = {minute.end: minute for minute in minutes_of(samples)}
    for number, changes in enumerate(increases, 1):
        minute = known.get(BEGIN + number * MINUTE_MS)
        if number == missed:
            assert minute is None
        else:
            assert minute.increases == (None if number == missed + 1 else changes)


@given(st.lists(moves), st.lists(moves))
def test_a_restart_of_the_server_is_a_gap(before, after):
    samples = counted(before) + counted(after, run="s", begin=len(before) + 1)
    increases = [minute.increases for minute in minutes_of(samples)]
    assert increases == [None, *before, None, *after]


@given(st.lists(moves, min_size=1), st.integers(0), st.lists(moves))
def test_a_rollback_within_a_run_is_never_more_than_was_counted(before, kept, after):
    """The samples since are lost with the counters, or the counters alone are."""
    lost = counted(before)
    left = lost[: kept % len(lost) + 1]
    base = left[-1].counters
    since = [
        Sample(
            at=one.at + MINUTE_MS,
            run="r",
            counters=summed(
                [
                    Period(end=0, minutes=1, increases=part, gauges={})
                    for part in (base, one.counters)
                ]
            ),
        )
        for one in counted(after, begin=len(before))
    ]
    for samples in (left, lost):
        minutes = minutes_of([*samples, *since])
        assert all(
            count
            <= max(
                (changes.get(name, {}).get(label, 0) for changes in (*before, *after)), default=0
            )
            for minute in minutes
            for name, counts in (minute.increases or {}).items()
            for label, count in counts.items()
        )


def test_a_counter_that_went_backwards_makes_all_of_them_unknown():
    before = sample(0, {EVENTS: {"a": 5, "b": 5}})
    assert increases_between(before, sample(1, {EVENTS: {"a": 4, "b": 9}})) is None
    assert increases_between(before, sample(1, {EVENTS: {"b": 9}})) is None
    assert increases_between(before, sample(1, {EVENTS: {"a": 5, "b": 9}})) == {EVENTS: {"b": 4}}


@pytest.mark.parametrize(("late", "known"), [(29, True), (31, False), (-29, True), (-31, False)])
def test_a_sample_that_is_half_a_minute_late_or_early_is_a_gap(late, known):
    counters = {EVENTS: {"a": 1}}
    increases = increases_between(sample(0, {}), sample(1, counters, late=late * 1_000))
    assert increases == (counters if known else None)


@given(st.lists(st.one_of(st.none(), moves), max_size=200), st.integers(0, 59))
def test_hours_are_the_sum_of_their_minutes(minutes, begin):
    given = [
        Period(
            end=BEGIN + (begin + number) * MINUTE_MS,
            minutes=int(increases is not None),
            increases=increases,
            gauges={"pending": number},
        )
        for number, increases in enumerate(minutes)
    ]
    hours = hours_of(given)
    assert summed(hours) == summed(given)
    assert sum(hour.minutes for hour in hours) == sum(minute.minutes for minute in given)
    for hour in hours:
        parts = [one for one in given if hour.end - HOUR_MS < one.end <= hour.end]
        assert summed([hour]) == summed(parts)
        assert (hour.increases is None) == all(part.increases is None for part in parts)
        assert hour.gauges == parts[-1].gauges


# --- quantiles ----------------------------------------------------------------------------------

METRIC = metrics.HistogramMetric("h_seconds", "A histogram.", (0.5, 1, 10))


def buckets(*seconds: float) -> dict[str, int]:
    increments = sum((metrics.observe(METRIC, one) for one in seconds), Counter())
    return {field.rpartition("|")[2]: count for field, count in increments.items()}


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [  # by histogram_quantile of Prometheus
        ({"1": 4}, 0.5, 0.75),
        ({"0.5": 2, "1": 2}, 0.5, 0.5),
        ({"0.5": 1, "10": 1}, 0.99, 9.82),
        ({"0.5": 1, "+Inf": 9}, 0.95, 10),
        ({"sum": 7}, 0.5, None),
        ({}, 0.5, None),
    ],
)
def test_a_quantile_is_what_prometheus_makes_of_the_buckets(counts, share, expected):
    found = quantiles(METRIC.bounds, counts, [share])
    assert found == ([] if expected is None else [pytest.approx(expected)])


@given(st.lists(st.floats(0, 10), min_size=1), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_quantile_lies_in_the_bucket_of_the_exact_one(seconds, share):
    (found,) = quantiles(METRIC.bounds, buckets(*seconds), [share])
    rank = share * len(seconds)
    exact = next(one for at, one in enumerate(sorted(seconds), 1) if at >= rank)
    ends = (0, *METRIC.bounds)
    lower, upper = next((low, high) for low, high in pairwise(ends) if exact <= high)
    assert lower <= found <= upper


# --- series -------------------------------------------------------------------------------------


def plotted(name: str, *periods: Period) -> dict[str, list]:
    times = [BEGIN + number * MINUTE_MS for number in range(3)]
    found = series_at(times, periods, {name})
    return {" ".join(one.labels.values()): list(one.values) for one in found}


def minute(number: int, increases: dict | None, **gauges: float) -> Period:
    return Period(end=BEGIN + number * MINUTE_MS, minutes=1, increases=increases, gauges=gauges)


def test_what_is_unknown_is_null_and_what_was_not_counted_is_zero():
    found = plotted(EVENTS, minute(0, {EVENTS: {"course.created": 3}}), minute(2, None))
    assert found["course.created"] == [3, None, None]
    assert found["course.deleted"] == [0, None, None]


def test_label_values_that_are_not_declared_have_a_series_too():
    found = plotted(EVENTS, minute(1, {EVENTS: {"course.renamed": 3}}))
    assert found["course.renamed"] == [None, 3, None]


def test_gauges_are_known_where_counters_are_not():
    given = minute(1, None, **{"state:active": 4, "pending": 2})
    assert plotted("integrations", given)["active"] == [None, 4, None]
    assert plotted("integrations", given)["paused"] == [None, 0, None]
    assert plotted("deliveries_pending", given) == {"": [None, 2, None]}


def test_a_histogram_has_quantiles_and_a_count():
    name = metrics.RECEIPT.name
    given = minute(0, {name: {"0.1": 2, "0.25": 2, "sum": 9}}), minute(1, {})
    assert plotted(f"{name}_count", *given) == {"": [4, 0, None]}
    assert plotted(name, *given)["0.5"] == [pytest.approx(0.1), None, None]


def test_each_series_is_named_like_the_metric_that_prometheus_has():
    exposed = {name.removeprefix(metrics.PREFIX) for name in metrics.series_names()}
    own = {metrics.OLDEST_PENDING.name}
    quantiles = {name for name, family in FAMILIES.items() if family.kind == "quantile"}
    assert set(FAMILIES) - own - quantiles <= exposed
