from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from service.domain.observability.metrics import (
    HISTOGRAMS,
    POLL_DURATION,
    HistogramMetric,
    count,
    observe,
    observed,
    series_names,
)

METRIC = HistogramMetric("h_seconds", "A histogram.", (0.5, 1, 10))


def told(*seconds: float) -> Counter[str]:
    return sum((observe(METRIC, one) for one in seconds), Counter())


def test_an_observation_counts_one_bucket_and_its_part_of_the_sum():
    assert observe(METRIC, 0.7) == {"h_seconds|1": 1, "h_seconds|sum": 700}
    assert observe(METRIC, 99) == {"h_seconds|+Inf": 1, "h_seconds|sum": 99_000}


def test_a_bound_belongs_to_its_bucket():
    assert "h_seconds|1" in observe(METRIC, 1.0)


def test_a_clock_that_was_set_back_counts_as_no_time():
    assert observe(METRIC, -5) == {"h_seconds|0.5": 1, "h_seconds|sum": 0}


def test_buckets_are_cumulated_for_prometheus():
    (one,) = observed(METRIC, told(0.1, 0.7, 0.8, 99)).values()
    assert one.buckets == (("0.5", 1), ("1", 3), ("10", 3), ("+Inf", 4))
    assert one.sum == 100.6


def test_without_observations_a_histogram_without_labels_is_zero_and_others_have_no_series():
    assert observed(METRIC, {})[()].buckets[-1] == ("+Inf", 0)
    assert observed(POLL_DURATION, {}) == {}


def test_labels_are_told_apart():
    counted = observe(POLL_DURATION, 1, "delta") + observe(POLL_DURATION, 700, "full")
    assert set(observed(POLL_DURATION, counted)) == {("delta",), ("full",)}


def test_buckets_of_bounds_that_were_given_up_count_in_the_next_above():
    stored = {"h_seconds|0.7": 2, "h_seconds|30": 1, "h_seconds|sum": 5}
    (one,) = observed(METRIC, stored).values()
    assert one.buckets == (("0.5", 0), ("1", 2), ("10", 2), ("+Inf", 3))


def test_a_histogram_is_not_mistaken_for_one_whose_name_begins_alike():
    longer = HistogramMetric("h_seconds_more", "Another.", (1,))
    assert observed(METRIC, observe(longer, 1))[()].sum == 0


@given(st.lists(st.floats(min_value=0, max_value=1e6)))
def test_every_observation_is_in_exactly_one_bucket(seconds):
    (one,) = observed(METRIC, told(*seconds)).values()
    counts = [found for _, found in one.buckets]
    assert counts == sorted(counts)
    assert counts[-1] == len(seconds)
    for bound, found in one.buckets:
        assert found == sum(second <= float(bound) for second in seconds)


def test_counting_several_observations_is_counting_each():
    together: Counter[str] = Counter()
    for seconds in (0.25, -3.0, 0.75, 99.0):
        count(together, METRIC, seconds)
    assert together == observe(METRIC, 0.25) + observe(METRIC, -3) + observe(
        METRIC, 0.75
    ) + observe(METRIC, 99)


def test_bounds_rise_and_series_carry_the_prefix():
    for metric in HISTOGRAMS:
        assert list(metric.bounds) == sorted(set(metric.bounds))
    assert all(name.startswith("coursewire_") for name in series_names())
