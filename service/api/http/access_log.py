"""Logs one line per request, with the id in its response, and forbids caching."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple, cast

from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, reset_contextvars

from service.ids import new_id
from service.logs import get_logger

_log = get_logger("api")
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})  # requested every few seconds by machines


HEADER = "x-request-id"
_HEADER = HEADER.encode()
_CACHING = b"cache-control"
NO_STORE = (_CACHING, b"no-store")  # of each response that does not set it
_REQUEST_ID = "request_id"
_ANSWER = "answer"
UNANSWERED = 500  # the status of requests that were cancelled before their response


class Answer(NamedTuple):
    """The response that a request has begun to receive."""

    status: int
    seconds: float  # from its arrival


def answer_of(scope: Scope) -> Answer | None:
    """The response of a request, None before it begins. Middleware reads it here, because watching
    each message costs as much as the middleware itself."""
    answer: Answer | None = scope["state"].get(_ANSWER)
    return answer


def request_id_of(scope: Scope) -> str:
    """The id of a request."""
    request_id: str = scope["state"][_REQUEST_ID]
    return request_id


class AccessLog:
    """Logs the method, path, status and duration of each request, and counts it.

    Each line that is logged during the request carries its id, and so does the response.
    """

    def __init__(self, app: ASGIApp, count: Callable[[HTTPScope, Answer], None]) -> None:
        self._app = app
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on and logs it."""
        started = time.perf_counter()
        request_id = new_id("req")
        scope.setdefault("state", {})[_REQUEST_ID] = request_id

        async def send_noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                scope["state"][_ANSWER] = Answer(
                    int(message["status"]), time.perf_counter() - started
                )
                headers = [*message["headers"], (_HEADER, request_id.encode())]
                if not any(name == _CACHING for name, _ in headers):
                    headers.append(NO_STORE)
                message["headers"] = headers
            await send(message)

        bound = bind_contextvars(request_id=request_id)
        try:
            await self._app(scope, receive, send_noting)
        finally:
            answer = answer_of(scope) or Answer(UNANSWERED, 0.0)
            self._count(cast("HTTPScope", scope), answer)
            log = _log.debug if scope["path"] in _QUIET else _log.info
            client = cast("HTTPScope", scope).get("client")
            log(
                "request",
                address=client[0] if client is not None else None,
                method=cast("HTTPScope", scope)["method"],
                path=scope["path"],
                status=answer.status,
                milliseconds=round((time.perf_counter() - started) * 1000, 1),
            )
            reset_contextvars(**bound)
