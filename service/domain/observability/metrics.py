"""Every metric of the service: name, type, unit, labels, help; and the counts of one
observation."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, get_args

import msgspec

from service.domain.courses.change import Verdict
from service.domain.delivery.event_types import EVENT_TYPES
from service.domain.delivery.outcome import OutcomeClass
from service.domain.delivery.subscription import SubscriptionState
from service.domain.polling.integration import PollKind

PREFIX = "coursewire_"


class CounterMetric(msgspec.Struct, frozen=True):
    """A counter kept in Redis; `labels` in the order in which its fields are written. `known` are
    label values that are exposed as zero from the start, because Prometheus needs an earlier value
    to compute an increase.
    """

    name: str
    help: str
    labels: tuple[str, ...] = ()
    known: tuple[tuple[str, ...], ...] = ()


class GaugeMetric(msgspec.Struct, frozen=True):
    """A gauge read at each scrape; `total` is its field among the totals that scripts keep, if any.
    `unit` is the suffix that Prometheus expects of its name, empty for a plain number."""

    name: str
    help: str
    total: str = ""
    labels: tuple[str, ...] = ()
    unit: str = ""


class HistogramMetric(msgspec.Struct, frozen=True, eq=False):
    """A histogram kept in Redis. `bounds` are the sorted upper ends of its buckets in its unit;
    values above the last are counted in an unbounded bucket. Compared by identity, because each
    observation looks its fields up."""

    name: str
    help: str
    bounds: tuple[float, ...]
    labels: tuple[str, ...] = ()
    unit: str = "seconds"


_POLL_KINDS = tuple((kind,) for kind in get_args(PollKind))

COUNTERS = (
    CounterMetric(
        "polls_total",
        "Polls that have completed or failed.",
        ("kind", "outcome"),
        tuple((*kind, outcome) for kind in _POLL_KINDS for outcome in ("completed", "failed")),
    ),
    CounterMetric("pages_total", "Pages of upstream records that polls have compared."),
    CounterMetric(
        "records_total",
        "Results of comparisons, by `verdict`: one for each upstream record that a poll received, "
        "and one for each course that the upstream no longer returns.",
        ("verdict",),
        tuple((verdict.value,) for verdict in Verdict),
    ),
    CounterMetric(
        "upstream_errors_total",
        "Errors of polls, except rate limits. The label `code` is the error code of the upstream. "
        "If Coursewire does not know the error code, the label is the kind of error.",
        ("code",),
    ),
    CounterMetric(
        "rate_limit_waits_total",
        "Waits for the rate limit of a credential. A wait of a backfill has the kind `full`.",
        ("kind",),
        _POLL_KINDS,
    ),
    CounterMetric(
        "events_total",
        "Events appended to the event log.",
        ("type",),
        tuple((event_type,) for event_type in EVENT_TYPES),
    ),
    CounterMetric(
        "attempts_total",
        "Delivery attempts that have ended, including the attempts of replays.",
        ("outcome",),
        tuple((outcome.value,) for outcome in OutcomeClass),
    ),
    CounterMetric(
        "deliveries_total",
        "Deliveries that have ended, by final state. Replays do not count.",
        ("state",),
        (("delivered",), ("dead",), ("skipped",)),
    ),
    CounterMetric(
        "replayed_total",
        "Replayed events whose delivery has ended.",
        ("state",),
        (("delivered",), ("dead",)),
    ),
    CounterMetric(
        "backfilled_total",
        "Courses that backfills have processed. The result is `left_out` if the course has changed "
        "since the last poll or has a held change. Otherwise, the result is `queued`.",
        ("result",),
        (("queued",), ("left_out",)),
    ),
)

POLL_DURATION = HistogramMetric(
    "poll_duration_seconds",
    "Time from the start of a poll to its completion, including waits.",
    (0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 21600),
    ("kind",),
)
UPSTREAM_REQUEST = HistogramMetric(
    "upstream_request_duration_seconds",
    "Duration of the upstream requests of polls and backfills, until the response ends or the "
    "request fails.",
    (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
RATE_LIMIT_REMAINING = HistogramMetric(
    "rate_limit_remaining_ratio",
    "Share of the rate limit that remains in the current window, according to each upstream "
    "response.",
    (0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1),
    unit="ratio",
)
ATTEMPT_DURATION = HistogramMetric(
    "attempt_duration_seconds",
    "Duration of delivery attempts, until the response ends or the attempt fails.",
    (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60),
)
_DELIVERY_BOUNDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 21600, 86400)
FIRST_ATTEMPT = HistogramMetric(
    "detection_to_first_attempt_seconds",
    "Time from the detection of a change to the start of the first attempt of a delivery. "
    "Replays, and changes detected before the creation of the subscription, do not count.",
    _DELIVERY_BOUNDS,
)
RECEIPT = HistogramMetric(
    "detection_to_receipt_seconds",
    "Time from the detection of a change to the receiver's 2xx response. Replays, and changes "
    "detected before the creation of the subscription, do not count.",
    _DELIVERY_BOUNDS,
)
HISTOGRAMS = (
    POLL_DURATION,
    UPSTREAM_REQUEST,
    RATE_LIMIT_REMAINING,
    ATTEMPT_DURATION,
    FIRST_ATTEMPT,
    RECEIPT,
)

REDIS_UP = GaugeMetric("redis_up", "1 if Redis answers this API process, otherwise 0.")
REDIS_MEMORY_USED = GaugeMetric("redis_memory_used_bytes", "Memory that Redis uses.", unit="bytes")
REDIS_MEMORY_LIMIT = GaugeMetric(
    "redis_memory_limit_bytes",
    "Memory limit of Redis (`maxmemory`), 0 without a limit.",
    unit="bytes",
)
REDIS_PERSISTENCE_OK = GaugeMetric(
    "redis_persistence_ok",
    "1 if Redis keeps an append-only file, and the last write and rewrite of this file and the "
    "last snapshot succeeded. Otherwise 0.",
)
INTEGRATIONS = GaugeMetric("integrations", "Registered integrations by state.", labels=("state",))
SUBSCRIPTIONS = GaugeMetric("subscriptions", "Registered subscriptions.")
OUTBOXES = GaugeMetric(
    "outboxes",
    "Outboxes by state of the subscription: `active`, `parked`, `paused` or `disabled`. If the "
    "last attempt of an active subscription failed, the state is `failing` instead of `active`.",
    labels=("state",),
)
OUTBOX_STATES = (*(state.value for state in SubscriptionState), "failing")
EVENT_LOG = GaugeMetric("event_log_events", "Events in the event log.")
DUE = GaugeMetric(
    "due", "Polls or outboxes that are due and that no scheduler has claimed.", labels=("kind",)
)
CLAIMED = GaugeMetric(
    "claimed",
    "Claimed polls or outboxes: queued for a worker, in progress, or held back. Coursewire holds "
    "back an outbox that has reached its rate limit, and a parked outbox between probes.",
    labels=("kind",),
)
DUE_AGE = GaugeMetric(
    "due_oldest_age_seconds",
    "Longest time for which a poll or an outbox has been due and not claimed, or has waited "
    "since its claim expired. Paused integrations, and paused or disabled subscriptions, do not "
    "count. The value continues to increase during a pause of the whole system.",
    labels=("kind",),
    unit="seconds",
)
PAUSED = GaugeMetric(
    "paused",
    "1 if polling or delivery is paused for the whole system, otherwise 0.",
    labels=("what",),
)
POLL_AGE = GaugeMetric(
    "poll_age_seconds",
    "Time since the last completed poll of an integration, by percentile of the integrations. "
    "Percentile 100 is the longest time. Integrations that are paused or in `error` do not "
    "count. If no poll has completed since the registration, a pause or an `error`, the time "
    "counts from the next attempt to poll. A full poll also counts as a delta.",
    labels=("kind", "percentile"),
    unit="seconds",
)
SCHEDULER_AGE = GaugeMetric(
    "scheduler_age_seconds", "Time since a scheduler last looked for due work.", unit="seconds"
)
WORKERS = GaugeMetric("workers", "Running worker processes by queue.", labels=("queue",))
QUEUE_JOBS = GaugeMetric("queue_jobs", "Waiting jobs by queue.", labels=("queue",))
QUEUE_FAILED = GaugeMetric(
    "queue_failed_jobs", "Jobs that failed in the last day, by queue.", labels=("queue",)
)
TOTALS = (
    GaugeMetric("deliveries_pending", "Pending deliveries. Replays do not count.", "pending"),
    GaugeMetric("deliveries_dead", "Dead deliveries that the API still lists.", "dead"),
    GaugeMetric("replays_unfinished", "Replays that have not ended.", "replays"),
    GaugeMetric("courses_live", "Live courses of all integrations.", "courses"),
    GaugeMetric("changes_held", "Changes that are held for review.", "held"),
    GaugeMetric("courses_quarantined", "Courses whose records are quarantined.", "quarantined"),
)
# Only in the history, because a scrape does not read outboxes.
OLDEST_PENDING = GaugeMetric(
    "oldest_pending_age_seconds",
    "Age of the oldest event on outboxes, without those that are paused or disabled.",
    "oldest_pending",
    unit="seconds",
)
GAUGES = (
    REDIS_UP,
    REDIS_MEMORY_USED,
    REDIS_MEMORY_LIMIT,
    REDIS_PERSISTENCE_OK,
    INTEGRATIONS,
    SUBSCRIPTIONS,
    OUTBOXES,
    EVENT_LOG,
    DUE,
    CLAIMED,
    DUE_AGE,
    PAUSED,
    POLL_AGE,
    SCHEDULER_AGE,
    WORKERS,
    QUEUE_JOBS,
    QUEUE_FAILED,
    *TOTALS,
)
PERCENTILES = (50, 90, 99, 100)

# Of single registrations, and only on request, because each of these has its own series.
Detail = Literal["integrations", "subscriptions", "credentials"]
DETAILS: tuple[Detail, ...] = get_args(Detail)
DETAIL_MOST = 1_000  # of a kind that are exposed: those that were registered first
DETAIL_OMITTED = GaugeMetric(
    "detail_omitted",
    "Number of resources that have no metrics of their own. Only the first "
    f"{DETAIL_MOST:,} registered resources of each kind have such metrics.",
    labels=("detail",),
)
INTEGRATION_STATE = GaugeMetric(
    "integration_state",
    "1 for the current state of the integration. Absent for the other states.",
    labels=("integration", "state"),
)
INTEGRATION_POLL_AGE = GaugeMetric(
    "integration_poll_age_seconds",
    "Time since the last completed poll of the integration, measured as in "
    "`coursewire_poll_age_seconds`. Absent while the integration is paused or in `error`.",
    labels=("integration", "kind"),
    unit="seconds",
)
SUBSCRIPTION_STATE = GaugeMetric(
    "subscription_state",
    "1 for the current state of the subscription. Absent for the other states. "
    "`coursewire_outboxes` has the same states.",
    labels=("subscription", "state"),
)
SUBSCRIPTION_PENDING = GaugeMetric(
    "subscription_pending",
    "Pending deliveries of the subscription. Replays do not count.",
    labels=("subscription",),
)
SUBSCRIPTION_DEAD = GaugeMetric(
    "subscription_dead",
    "Dead deliveries of the subscription that the API still lists.",
    labels=("subscription",),
)
SUBSCRIPTION_AGE = GaugeMetric(
    "subscription_oldest_pending_age_seconds",
    "Age of the oldest pending event of the subscription, 0 if no event is pending.",
    labels=("subscription",),
    unit="seconds",
)
CREDENTIAL_LIMIT = GaugeMetric(
    "credential_rate_limit",
    "Requests that the upstream allows in the current rate limit window. Absent if unknown.",
    labels=("credential",),
)
CREDENTIAL_REMAINING = GaugeMetric(
    "credential_rate_limit_remaining",
    "Requests that remain in the current rate limit window. Absent if unknown.",
    labels=("credential",),
)
INTEGRATION_CLOCK_SKEW = GaugeMetric(
    "integration_clock_skew_seconds",
    "Time of the upstream's clock minus time of Coursewire's clock, 0 if the difference is at "
    "most 30 seconds.",
    labels=("integration",),
    unit="seconds",
)
# Stored in the hash of each integration; `total` is the field.
OF_INTEGRATION = (
    GaugeMetric(
        "integration_courses",
        "Live courses of the integration.",
        "course_count",
        ("integration",),
    ),
    GaugeMetric("integration_held", "Held changes of the integration.", "held", ("integration",)),
    GaugeMetric(
        "integration_quarantined",
        "Quarantined courses of the integration.",
        "quarantined",
        ("integration",),
    ),
    GaugeMetric(
        "integration_failures",
        "Consecutive failures of the integration's polls.",
        "failures",
        ("integration",),
    ),
)
OF_DETAILS = (
    DETAIL_OMITTED,
    INTEGRATION_STATE,
    INTEGRATION_POLL_AGE,
    *OF_INTEGRATION,
    INTEGRATION_CLOCK_SKEW,
    SUBSCRIPTION_STATE,
    SUBSCRIPTION_PENDING,
    SUBSCRIPTION_DEAD,
    SUBSCRIPTION_AGE,
    CREDENTIAL_LIMIT,
    CREDENTIAL_REMAINING,
)

# Of the process that answers, counted in it: name, kind, help, labels.
BUILD = GaugeMetric(
    "build_info",
    "Always 1. The labels contain the versions of Coursewire and Python in this process.",
    labels=("version", "python"),
)
REQUESTS = CounterMetric(
    "api_requests_total",
    "Requests to known routes that this process has answered.",
    ("method", "route", "status"),
)
REQUEST_DURATION = HistogramMetric(
    "api_request_duration_seconds",
    "Time from the arrival of a request to the start of its response. Event streams and long "
    "polls do not count.",
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    ("method", "route"),
)

SUM = "sum"  # the field of a histogram's sum, beside those of its buckets
_END = "+Inf"


def series_names() -> frozenset[str]:
    """The names under which Prometheus stores samples of all these metrics."""
    plain = {one.name for one in (*COUNTERS, *GAUGES, *OF_DETAILS, BUILD, REQUESTS)}
    spread = {
        f"{one.name}_{part}"
        for one in (*HISTOGRAMS, REQUEST_DURATION)
        for part in ("bucket", "count", "sum")
    }
    return frozenset(PREFIX + name for name in plain | spread)


def observe(metric: HistogramMetric, value: float, *labels: str) -> Counter[str]:
    """The increments of stored counters for an observation: its bucket, and its part of the sum in
    thousandths. A negative one, as after a clock was set back, counts as zero."""
    increments: Counter[str] = Counter()
    count(increments, metric, value, *labels)
    return increments


def count(increments: Counter[str], metric: HistogramMetric, value: float, *labels: str) -> None:
    """Adds the increments for an observation to `increments`."""
    stem, ends = _fields(metric, labels)
    increments[ends[bisect_left(metric.bounds, value)]] += 1
    increments[stem] += max(0, round(value * 1000))


@lru_cache(maxsize=256)
def _fields(metric: HistogramMetric, labels: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The stored counters of a histogram's sum, and of its buckets."""
    stem = "|".join((metric.name, *labels))
    return f"{stem}|{SUM}", tuple(f"{stem}|{end}" for end in (*map(_bound, metric.bounds), _END))


class Observed(msgspec.Struct, frozen=True):
    """A histogram's state for one set of labels, as Prometheus expects it: buckets up to each
    bound, the last unbounded, and the sum in its unit."""

    buckets: tuple[tuple[str, int], ...]
    sum: float


def observed(metric: HistogramMetric, stored: Mapping[str, int]) -> dict[tuple[str, ...], Observed]:
    """The states of a histogram in the stored counters, by its labels.

    Buckets of bounds that no longer exist are counted in the next bucket above.
    """
    counts: dict[tuple[str, ...], dict[str, int]] = {}
    for field, value in stored.items():
        name, *labels = field.split("|")
        if name == metric.name and len(labels) == len(metric.labels) + 1:
            counts.setdefault(tuple(labels[:-1]), {})[labels[-1]] = value
    if not metric.labels:
        counts.setdefault((), {})
    return {labels: _cumulated(metric, parts) for labels, parts in counts.items()}


def _cumulated(metric: HistogramMetric, parts: dict[str, int]) -> Observed:
    total = parts.pop(SUM, 0) / 1000
    buckets = []
    for bound in (*metric.bounds, float("inf")):
        below = sum(count for end, count in parts.items() if float(end) <= bound)
        buckets.append((_bound(bound), below))
    return Observed(tuple(buckets), total)


def _bound(bound: float) -> str:
    return _END if bound == float("inf") else f"{bound:g}"
