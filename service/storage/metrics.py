"""The Prometheus exposition, read from Redis in a fixed number of commands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from redis.exceptions import RedisError

from service.clock import now_ms
from service.domain.metrics import COUNTERS, GAUGES, PREFIX
from service.storage import keys
from service.storage.counters import Counters

if TYPE_CHECKING:
    from redis.asyncio import Redis


class _Snapshot:
    """A collector over values that have been read already."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = tuple(metrics)

    def collect(self) -> Iterable[Metric]:
        """The metrics, as prometheus-client asks for them."""
        return self._metrics


class Metrics:
    """Renders the metrics of the whole system; every API process shows the same."""

    def __init__(self, redis: Redis, counters: Counters) -> None:
        self._redis = redis
        self._counters = counters

    async def render(self, accept: str = "") -> tuple[bytes, str]:
        """The exposition in the format that `accept` prefers, and its content type.

        With Redis away it says just that.
        """
        try:
            metrics = await self._read()
        except RedisError:
            metrics = [_gauge("redis_up", "Whether Redis answers.", 0)]
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Snapshot(metrics))
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type

    async def _read(self) -> list[Metric]:
        counters, totals = await self._counters.read()
        now = now_ms()
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.zcard(keys.INTEGRATIONS)
            pipeline.zcard(keys.SUBSCRIPTIONS)
            pipeline.xlen(keys.EVENTS)
            for kind in ("walks", "lanes"):
                pipeline.zcount(keys.due(kind), "-inf", now)
                pipeline.zcard(keys.claimed(kind))
            (
                integrations,
                subscriptions,
                events,
                walks_due,
                walks_claimed,
                lanes_due,
                lanes_claimed,
            ) = await pipeline.execute()
        return [
            _gauge("redis_up", "Whether Redis answers.", 1),
            _gauge("integrations", "Registered integrations.", integrations),
            _gauge("subscriptions", "Registered subscriptions.", subscriptions),
            _gauge("event_log_events", "Events in the log.", events),
            _by_kind("due", "Work that is due and not claimed.", walks_due, lanes_due),
            _by_kind(
                "claimed",
                "Work that is claimed, under way or held back.",
                walks_claimed,
                lanes_claimed,
            ),
            *(_gauge(one.name, one.help, totals.get(one.total, 0)) for one in GAUGES),
            *_counter_families(counters),
        ]


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(PREFIX + name, text, value=value)


def _by_kind(name: str, text: str, walks: float, lanes: float) -> GaugeMetricFamily:
    family = GaugeMetricFamily(PREFIX + name, text, labels=["kind"])
    family.add_metric(["walks"], walks)
    family.add_metric(["lanes"], lanes)
    return family


def _counter_families(values: Mapping[str, int]) -> list[CounterMetricFamily]:
    families = {
        metric.name: CounterMetricFamily(
            PREFIX + metric.name, metric.help, labels=list(metric.labels)
        )
        for metric in COUNTERS
    }
    for stored, value in values.items():
        name, *labels = stored.split("|")
        if name in families:
            families[name].add_metric(labels, value)
    for metric in COUNTERS:
        if not metric.labels and metric.name not in values:
            families[metric.name].add_metric([], 0)
    return list(families.values())
