"""Counts the requests that this process answers, and exposes metrics of the process."""

from __future__ import annotations

import platform
from collections.abc import Iterable

from litestar.types import HTTPScope
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import Metric

from service.api.http.access_log import Answer
from service.api.http.version import version
from service.domain.observability.metrics import BUILD, PREFIX, REQUEST_DURATION, REQUESTS

_WAITING = frozenset({"/v1/events/stream"})  # responses that last as long as the client reads them
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Traffic:
    """Counts requests by route, because paths are unlimited in number. Requests without a route are
    not counted."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            PREFIX + REQUESTS.name, REQUESTS.help, REQUESTS.labels, registry=self._registry
        )
        self._seconds = Histogram(
            PREFIX + REQUEST_DURATION.name,
            REQUEST_DURATION.help,
            REQUEST_DURATION.labels,
            buckets=REQUEST_DURATION.bounds,
            registry=self._registry,
        )
        self._found: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        build = Gauge(PREFIX + BUILD.name, BUILD.help, BUILD.labels, registry=self._registry)
        build.labels(version(), platform.python_version()).set(1)

    def collect(self) -> Iterable[Metric]:
        """The metrics of this process, without the creation time of each series."""
        for metric in self._registry.collect():
            metric.samples = [one for one in metric.samples if not one.name.endswith("_created")]
            yield metric

    def count(self, scope: HTTPScope, answer: Answer) -> None:
        """Counts a request when it has ended."""
        route = scope.get("path_template", "")
        if not route:
            return
        method = scope["method"] if scope["method"] in _METHODS else "other"
        requests, durations = self._series(method, route, answer.status)
        requests.inc()
        if route not in _WAITING and b"wait=" not in scope["query_string"]:
            durations.observe(answer.seconds)

    def _series(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        """The counters of a kind of request; the lookup by labels takes longer than counting."""
        found = self._found.get((method, route, status))
        if found is None:
            found = (
                self._requests.labels(method, route, str(status)),
                self._seconds.labels(method, route),
            )
            self._found[method, route, status] = found
        return found
