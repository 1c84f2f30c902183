"""Counts the requests that this process answers, and shows how the process itself is doing."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from typing import cast

from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import Metric

from service.api.access_log import UNANSWERED, Answer, answer_of
from service.api.openapi import version
from service.domain.metrics import BUILD, PREFIX, REQUEST_DURATION, REQUESTS

_WAITING = frozenset({"/v1/events/stream"})  # answers that last as long as somebody listens
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Traffic(ASGIMiddleware):
    """Counts requests by their route, never by their path, of which there is no end. What matches
    no route is not counted."""

    scopes = (ScopeType.HTTP,)

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
        """The metrics of this process, without when each series began: a counter's own age."""
        for metric in self._registry.collect():
            metric.samples = [one for one in metric.samples if not one.name.endswith("_created")]
            yield metric

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Passes the request on and counts it."""
        try:
            await next_app(scope, receive, send)
        finally:
            http = cast("HTTPScope", scope)
            method = http["method"] if http["method"] in _METHODS else "other"
            route = http["path_template"]
            status, seconds = answer_of(scope) or Answer(UNANSWERED, 0.0)
            requests, durations = self._series(method, route, status)
            requests.inc()
            if route not in _WAITING and b"wait=" not in scope["query_string"]:
                durations.observe(seconds)

    def _series(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        """The counters of a kind of request; finding them by their labels takes longer than
        counting."""
        found = self._found.get((method, route, status))
        if found is None:
            found = (
                self._requests.labels(method, route, str(status)),
                self._seconds.labels(method, route),
            )
            self._found[method, route, status] = found
        return found
