"""The Prometheus exposition, read from Redis in a fixed number of commands."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from redis.exceptions import RedisError

from service.domain.observability import metrics as declared
from service.domain.observability.metrics import COUNTERS, HISTOGRAMS, PREFIX, Detail, GaugeMetric
from service.domain.polling.integration import IntegrationState
from service.storage.observability.per_resource_gauges import Details, Values
from service.storage.redis import keys
from service.storage.redis.server_fitness import Server
from service.storage.redis.server_info import server_of
from service.storage.scheduling.leases import Kind
from service.storage.scheduling.pause import ACTIVITIES

if TYPE_CHECKING:
    from redis.asyncio import Redis

_KINDS: tuple[Kind, ...] = ("polls", "outboxes")
_POLL_KINDS = ("delta", "full")
PATIENCE_SECONDS = 8.0  # below Prometheus's own, which is 10 s unless set otherwise


class _Snapshot:
    """A collector of values that were read before."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = tuple(metrics)

    def collect(self) -> Iterable[Metric]:
        """The metrics in the form of prometheus-client."""
        return self._metrics


class _Read(msgspec.Struct, frozen=True):
    """The replies of the second round of commands."""

    counters: Mapping[str, int]
    totals: Mapping[str, int]
    gauges: Mapping[GaugeMetric, Values]
    completed: Mapping[str, int]
    workers: Mapping[str, Sequence[bytes]]
    now: int


class Metrics:
    """Renders the metrics of the whole system; every API process returns the same.

    It takes three rounds of commands, independent of the number of registrations: INFO, which names
    the run of the counters; the counters, sizes and the ranks to read; the values at those ranks,
    and the live workers.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._details = Details(redis)

    async def render(
        self, accept: str = "", local: Iterable[Metric] = (), details: Collection[Detail] = ()
    ) -> tuple[bytes, str]:
        """The exposition in the format that `accept` prefers, and its content type.

        `local` are the metrics of this process, `details` the kinds of single registrations to
        include. If Redis is unreachable or too slow, it contains only that fact and the `local`
        metrics.
        """
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                metrics = await self._read(details)
        except (RedisError, OSError):
            metrics = [_gauge(declared.REDIS_UP, {(): 0})]
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Snapshot([*metrics, *local]))
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type

    async def _read(self, details: Collection[Detail]) -> list[Metric]:
        server = server_of(await self._redis.info())
        read = await self._second_round(server)
        ages = await self._third_round(read)
        single = await self._details.read(details, read.now)
        gauges = {**_server_gauges(server), **read.gauges, **ages}
        return [
            *(_gauge(metric, gauges[metric]) for metric in declared.GAUGES if metric in gauges),
            *(_gauge(one, {(): read.totals.get(one.total, 0)}) for one in declared.TOTALS),
            *_counters(read.counters),
            *_histograms(read.counters),
            *(_gauge(metric, single[metric]) for metric in declared.OF_DETAILS if metric in single),
        ]

    async def _second_round(self, server: Server) -> _Read:
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.time()
            pipeline.hgetall(keys.counters(server.run_id))
            pipeline.hgetall(keys.TOTALS)
            pipeline.hgetall(keys.CONTROL)
            pipeline.zrange(keys.SCHEDULERS, 0, 0, desc=True, withscores=True)
            pipeline.zcard(keys.SUBSCRIPTIONS)
            pipeline.xlen(keys.EVENTS)
            for kind in _KINDS:
                pipeline.zrange(keys.due(kind), 0, 0, withscores=True)
                pipeline.zrange(keys.overdue(kind), 0, 0, withscores=True)
                pipeline.zcard(keys.claimed(kind))
            for poll_kind in _POLL_KINDS:
                pipeline.zcard(keys.completed(poll_kind))
            for queue in keys.QUEUES:
                pipeline.llen(keys.rq_queue(queue))
                pipeline.zcard(keys.rq_failed(queue))
                pipeline.smembers(keys.rq_workers(queue))
            replies = iter(await pipeline.execute())
        seconds, microseconds = next(replies)
        now = int(seconds) * 1000 + int(microseconds) // 1000
        counters, totals = _decoded(next(replies)), _decoded(next(replies))
        paused, turns = next(replies), next(replies)
        gauges: dict[GaugeMetric, dict[tuple[str, ...], float]] = {
            declared.PAUSED: {(one,): one.encode() in paused for one in ACTIVITIES.values()},
            declared.INTEGRATIONS: {
                (state.value,): totals.get(f"state:{state}", 0) for state in IntegrationState
            },
            declared.OUTBOXES: {
                (state,): totals.get(f"outbox:{state}", 0) for state in declared.OUTBOX_STATES
            },
            declared.SUBSCRIPTIONS: {(): next(replies)},
            declared.EVENT_LOG: {(): next(replies)},
        }
        if turns:
            gauges[declared.SCHEDULER_AGE] = {(): _age(turns[0][1], now)}
        for kind in _KINDS:
            at = min((at for _, at in [*next(replies), *next(replies)]), default=now)
            gauges.setdefault(declared.DUE_AGE, {})[(kind,)] = _age(at, now)
            gauges.setdefault(declared.CLAIMED, {})[(kind,)] = next(replies)
        completed = {poll_kind: int(next(replies)) for poll_kind in _POLL_KINDS}
        workers = {}
        for queue in keys.QUEUES:
            gauges.setdefault(declared.QUEUE_JOBS, {})[(queue,)] = next(replies)
            gauges.setdefault(declared.QUEUE_FAILED, {})[(queue,)] = next(replies)
            workers[queue] = sorted(next(replies))
        return _Read(counters, totals, gauges, completed, workers, now)

    async def _third_round(self, read: _Read) -> dict[GaugeMetric, Values]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for kind in _KINDS:
                pipeline.zcount(keys.due(kind), "-inf", read.now)
            for poll_kind in _POLL_KINDS:
                for percentile in declared.PERCENTILES:
                    # The oldest comes first.
                    rank = (100 - percentile) * (max(1, read.completed[poll_kind]) - 1) // 100
                    pipeline.zrange(keys.completed(poll_kind), rank, rank, withscores=True)
            for queue in keys.QUEUES:
                # A registered worker may have died silently; then its key has expired. The key for
                # no worker never exists.
                pipeline.exists(*(read.workers[queue] or [keys.rq_workers("").encode()]))
            replies = iter(await pipeline.execute())
        due: Values = {(kind,): next(replies) for kind in _KINDS}
        ages: dict[tuple[str, ...], float] = {}
        for poll_kind in _POLL_KINDS:
            for percentile in declared.PERCENTILES:
                if found := next(replies):
                    ages[(poll_kind, str(percentile))] = _age(found[0][1], read.now)
        workers: Values = {(queue,): next(replies) for queue in keys.QUEUES}
        return {declared.DUE: due, declared.POLL_AGE: ages, declared.WORKERS: workers}


def _server_gauges(server: Server) -> dict[GaugeMetric, Values]:
    return {
        declared.REDIS_UP: {(): 1},
        declared.REDIS_MEMORY_USED: {(): server.memory_used},
        declared.REDIS_MEMORY_LIMIT: {(): server.memory_limit},
        declared.REDIS_PERSISTENCE_OK: {
            (): server.aof_ok and server.snapshot_ok if server.aof_enabled else 0
        },
    }


def _gauge(metric: GaugeMetric, values: Values) -> GaugeMetricFamily:
    family = GaugeMetricFamily(
        PREFIX + metric.name, metric.help, labels=list(metric.labels), unit=metric.unit
    )
    for labels, value in values.items():
        family.add_metric(list(labels), float(value))
    return family


def _counters(values: Mapping[str, int]) -> Iterator[CounterMetricFamily]:
    families = {
        metric.name: CounterMetricFamily(
            PREFIX + metric.name, metric.help, labels=list(metric.labels)
        )
        for metric in COUNTERS
    }
    counted = {
        "|".join((metric.name, *labels)): 0
        for metric in COUNTERS
        for labels in metric.known or ([] if metric.labels else [()])
    }
    for stored, value in {**counted, **values}.items():
        name, *labels = stored.split("|")
        if name in families:
            families[name].add_metric(labels, value)
    yield from families.values()


def _histograms(values: Mapping[str, int]) -> Iterator[HistogramMetricFamily]:
    for metric in HISTOGRAMS:
        family = HistogramMetricFamily(
            PREFIX + metric.name, metric.help, labels=list(metric.labels), unit=metric.unit
        )
        for labels, one in declared.observed(metric, values).items():
            family.add_metric(list(labels), list(one.buckets), one.sum)
        yield family


def _age(at: float, now: int) -> float:
    """Seconds since `at`, 0 for a later time; both epoch ms."""
    return max(0.0, (now - at) / 1000)


def _decoded(stored: dict[Any, Any]) -> dict[str, int]:
    return {name.decode(): int(value) for name, value in stored.items()}
