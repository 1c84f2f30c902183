"""Every metric of the service: name, type, labels, help. Counted by the committing scripts."""

from __future__ import annotations

import msgspec


class CounterMetric(msgspec.Struct, frozen=True):
    """A counter kept in Redis; `labels` in the order in which its fields are written."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


class GaugeMetric(msgspec.Struct, frozen=True):
    """A gauge kept true in Redis; `total` is where."""

    name: str
    help: str
    total: str


COUNTERS = (
    CounterMetric("walks_total", "Walks that have ended.", ("kind", "outcome")),
    CounterMetric("pages_total", "Pages of the upstream that were compared."),
    CounterMetric("records_total", "Upstream records by what they meant.", ("verdict",)),
    CounterMetric("upstream_errors_total", "Walks stopped by the upstream.", ("code",)),
    CounterMetric("events_total", "Events appended to the log.", ("type",)),
    CounterMetric("attempts_total", "HTTP attempts that have ended.", ("outcome",)),
    CounterMetric("deliveries_total", "Deliveries that have ended.", ("state",)),
    CounterMetric("replayed_total", "Replayed events whose delivery has ended.", ("state",)),
)

GAUGES = (
    GaugeMetric("deliveries_pending", "Events on lanes, not received yet.", "pending"),
    GaugeMetric("deliveries_dead", "Deliveries given up and still listed.", "dead"),
    GaugeMetric("replays_unfinished", "Replays that have not ended.", "replays"),
    GaugeMetric("lanes_parked", "Lanes that only probes are sent to.", "parked"),
    GaugeMetric("subscriptions_disabled", "Subscriptions disabled by the service.", "disabled"),
    GaugeMetric("courses_live", "Live courses in all catalogues.", "courses"),
    GaugeMetric("changes_held", "Changes that wait for a decision on them.", "held"),
    GaugeMetric("courses_quarantined", "Records that do not decode.", "quarantined"),
)

PREFIX = "coursewire_"
