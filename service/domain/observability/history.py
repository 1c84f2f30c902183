"""The history of metrics: increases of counters and values of gauges, by the minute and hour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from service.domain.observability import metrics
from service.domain.observability.metrics import CounterMetric, GaugeMetric, HistogramMetric
from service.domain.polling.integration import IntegrationState

MINUTE_MS = 60_000
MINUTES_IN_HOUR = 60
QUANTILES = (0.5, 0.95, 0.99)
# Samples are taken at the end of each minute. Counts between two samples that are not about a
# minute apart, because one was missed or late, do not belong to that minute.
_SPACING_TOLERANCE = 0.5  # minutes
_ENDLESS = float("inf")

Counts = Mapping[str, Mapping[str, int]]
"""Values by the name of a metric and by its label values, which `|` separates."""
Gauges = Mapping[str, int | float]
SeriesKind = Literal["counter", "gauge", "quantile"]


class Resolution(msgspec.Struct, frozen=True):
    """A resolution of the history: the length of its periods in minutes, and how many are kept."""

    name: Literal["minute", "hour"]
    minutes: int
    kept: int


MINUTES = Resolution("minute", 1, 2_880)  # 48 hours
HOURS = Resolution("hour", MINUTES_IN_HOUR, 1_440)  # 60 days
RESOLUTIONS = {one.name: one for one in (MINUTES, HOURS)}


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """The metrics in Redis at `at` (epoch ms). `run` identifies the run of the server: `counters`
    were zero at its start. `gauges` that are zero can be missing."""

    at: int
    run: str
    counters: Counts = {}
    gauges: Gauges = {}


class Period(msgspec.Struct, frozen=True, kw_only=True):
    """A minute or an hour that ended at `end` (epoch ms). `increases` are those of the counters,
    without zeros, over `minutes` of its minutes; None if no minute is known. `gauges` are those of
    its last sample.
    """

    end: int
    minutes: int
    increases: Counts | None
    gauges: Gauges


def increases_between(before: Sample, after: Sample, minute_ms: int = MINUTE_MS) -> Counts | None:
    """The increases of counters from one sample to the next.

    None if a sample was missed, the server was restarted, or a counter went backwards because the
    server lost data.
    """
    spacing = after.at - before.at
    if before.run != after.run or abs(spacing - minute_ms) > _SPACING_TOLERANCE * minute_ms:
        return None
    increases: dict[str, dict[str, int]] = {}
    for name in {**before.counters, **after.counters}:
        old, new = before.counters.get(name, {}), after.counters.get(name, {})
        if old == new:
            continue
        for labels in {**old, **new}:
            change = new.get(labels, 0) - old.get(labels, 0)
            if change < 0:
                return None
            if change:
                increases.setdefault(name, {})[labels] = change
    return increases


def minutes_of(samples: Iterable[Sample], minute_ms: int = MINUTE_MS) -> list[Period]:
    """The minutes at whose ends samples were taken, in the order of time. For the first sample,
    only its gauges are known."""
    found: list[Period] = []
    before: Sample | None = None
    for sample in samples:
        increases = None if before is None else increases_between(before, sample, minute_ms)
        found.append(
            Period(
                end=sample.at - sample.at % minute_ms,
                minutes=int(increases is not None),
                increases=increases,
                gauges=sample.gauges,
            )
        )
        before = sample
    return found


def hours_of(minutes: Iterable[Period], hour_ms: int = MINUTES_IN_HOUR * MINUTE_MS) -> list[Period]:
    """The hours that minutes add up to, in the order of time."""
    grouped: dict[int, list[Period]] = {}
    for minute in minutes:
        grouped.setdefault(-(-minute.end // hour_ms) * hour_ms, []).append(minute)
    return [_added_up(end, parts) for end, parts in grouped.items()]


def _added_up(end: int, parts: Sequence[Period]) -> Period:
    covered = sum(part.minutes for part in parts)
    increases: dict[str, Counter[str]] = {}
    for part in parts:
        for name, counts in (part.increases or {}).items():
            increases.setdefault(name, Counter()).update(counts)
    return Period(
        end=end, minutes=covered, increases=increases if covered else None, gauges=parts[-1].gauges
    )


def quantiles(
    bounds: Iterable[float], counts: Mapping[str, int], shares: Sequence[float] = QUANTILES
) -> list[float]:
    """The quantiles of a histogram for sorted `shares`, estimated like `histogram_quantile` of
    Prometheus; none without observations. `counts` are those of its buckets."""
    buckets = {float(end): count for end, count in counts.items() if end != metrics.SUM}
    ranks = [share * sum(buckets.values()) for share in shares]
    found: list[float] = []
    below = lower = 0.0
    for upper in sorted({*bounds, *buckets}):
        if inside := buckets.get(upper, 0):
            width = 0 if upper == _ENDLESS else upper - lower
            while len(found) < len(ranks) and ranks[len(found)] <= below + inside:
                found.append(lower + width * (ranks[len(found)] - below) / inside)
            below += inside
        lower = upper
    return found


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """The series of one name. `known` are the label values, written as in `Counts`, that always
    have a series. `values` returns the values of a period by label values, None if unknown;
    `absent` is the value of all other label values."""

    name: str
    kind: SeriesKind
    unit: str
    help: str
    labels: tuple[str, ...] = ()
    known: tuple[str, ...] = ("",)
    values: Callable[[Period], Mapping[str, float | None] | None]
    absent: float | None = 0


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """A value for each point in time, None if it is unknown."""

    name: str
    kind: SeriesKind
    unit: str
    labels: Mapping[str, str]
    values: Sequence[float | None]


def _counter(metric: CounterMetric) -> Family:
    return Family(
        name=metric.name,
        kind="counter",
        unit="count",
        help=metric.help,
        labels=metric.labels,
        known=tuple(map("|".join, metric.known)) if metric.labels else ("",),
        values=lambda period: (
            None if period.increases is None else period.increases.get(metric.name, {})
        ),
    )


def _gauge(metric: GaugeMetric, fields: Mapping[str, str]) -> Family:
    """`fields` are the names in `Sample.gauges` by label value."""
    return Family(
        name=metric.name,
        kind="gauge",
        unit=metric.unit or "count",
        help=metric.help,
        labels=metric.labels,
        known=tuple(fields),
        values=lambda period: {
            label: period.gauges.get(field, 0) for label, field in fields.items()
        },
    )


def _histogram(metric: HistogramMetric, observed: str) -> Iterable[Family]:
    known = tuple(map(str, QUANTILES))

    def buckets(period: Period) -> Mapping[str, int] | None:
        return None if period.increases is None else period.increases.get(metric.name, {})

    def observations(period: Period) -> Mapping[str, float | None] | None:
        if (counts := buckets(period)) is None:
            return None
        return {"": sum(counts.values()) - counts.get(metrics.SUM, 0)}

    def shares(period: Period) -> Mapping[str, float | None] | None:
        counts = buckets(period)
        return dict(zip(known, quantiles(metric.bounds, counts), strict=False)) if counts else None

    yield Family(
        name=f"{metric.name}_count",
        kind="counter",
        unit="count",
        help=observed,
        values=observations,
    )
    yield Family(
        name=metric.name,
        kind="quantile",
        unit=metric.unit,
        help=metric.help,
        labels=("quantile",),
        known=known,
        values=shares,
        absent=None,
    )


_HISTOGRAMS: Mapping[HistogramMetric, str] = {
    metrics.UPSTREAM_REQUEST: "Requests to the upstream that have ended.",
    metrics.RECEIPT: "Deliveries that were received, without replays and without events from "
    "before the subscription.",
}
STORED = (*(one.name for one in metrics.COUNTERS), *(one.name for one in _HISTOGRAMS))
"""The metrics whose stored counters samples keep."""
MEMORY = "memory"
FAMILIES = {
    family.name: family
    for family in (
        *map(_counter, metrics.COUNTERS),
        *(family for item in _HISTOGRAMS.items() for family in _histogram(*item)),
        *(_gauge(metric, {"": metric.total}) for metric in metrics.TOTALS),
        _gauge(metrics.OLDEST_PENDING, {"": metrics.OLDEST_PENDING.total}),
        _gauge(metrics.INTEGRATIONS, {state: f"state:{state}" for state in IntegrationState}),
        _gauge(metrics.OUTBOXES, {state: f"outbox:{state}" for state in metrics.OUTBOX_STATES}),
        _gauge(metrics.REDIS_MEMORY_USED, {"": MEMORY}),
    )
}


def series_at(
    times: Sequence[int], periods: Iterable[Period], names: Collection[str]
) -> list[Series]:
    """The series of these names, with a value for each of the times (epoch ms) at which a period
    ended."""
    by_end = {period.end: period for period in periods}
    return [
        one
        for name, family in FAMILIES.items()
        if name in names
        for one in _series(family, [by_end.get(time) for time in times])
    ]


def _series(family: Family, periods: Sequence[Period | None]) -> Iterable[Series]:
    found = [None if period is None else family.values(period) for period in periods]
    seen = {label for values in found for label in values or ()}
    for label in (*family.known, *sorted(seen - {*family.known})):
        yield Series(
            name=family.name,
            kind=family.kind,
            unit=family.unit,
            labels=dict(zip(family.labels, label.split("|"), strict=False)),
            values=[
                None if values is None else values.get(label, family.absent) for values in found
            ],
        )
