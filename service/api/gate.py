"""Stands before the router: refuses URLs and headers without end, and tells of methods."""

from __future__ import annotations

from typing import Any, Final, cast

from litestar import Request
from litestar.datastructures import MutableScopeHeaders
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from service.api.problems import HEADERS_TOO_LARGE, URI_TOO_LONG, ProblemType, answer

MAX_URL_BYTES = 8_192  # path and query
MAX_HEADER_BYTES = 16_384  # names and values together
_OPTIONS: Final = "OPTIONS"
_NO_METHOD: Final = "NONE"  # for which no route is there, so that the router lists its methods


class Gate:
    """What the router never sees."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on unless it is too large."""
        http = cast("HTTPScope", scope)
        problem = oversized(http)
        if problem is not None:
            request: Request[Any, Any, Any] = Request(scope, receive, send)
            response = answer(problem, problem.meaning, headers={"connection": "close"})
            await response.to_asgi_response(None, request)(scope, receive, send)
        elif http["method"] == _OPTIONS:
            asked = cast("Scope", {**scope, "method": _NO_METHOD})
            await self._app(asked, receive, _Options(send))
        else:
            await self._app(scope, receive, send)


def oversized(scope: HTTPScope) -> ProblemType | None:
    """What is too large about a request."""
    if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_URL_BYTES:
        return URI_TOO_LONG
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
        return HEADERS_TOO_LARGE
    return None


class _Options:
    """Turns the router's refusal of a method into the list of those that it takes."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._lists = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 405:
            self._lists = True
            message["status"] = 204
            headers = MutableScopeHeaders.from_message(message)
            for name in ("content-type", "content-length"):
                del headers[name]
        elif message["type"] == "http.response.body" and self._lists:
            message["body"] = b""
        await self._send(message)
