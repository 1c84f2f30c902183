"""Runs before the router: limits URLs and headers, and answers HEAD and OPTIONS."""

from __future__ import annotations

from typing import Any, Final, cast

from litestar import Request
from litestar.datastructures import MutableScopeHeaders
from litestar.types import (
    ASGIApp,
    HTTPResponseStartEvent,
    HTTPScope,
    Message,
    Receive,
    Scope,
    Send,
)

from service.api.http.middleware import READING
from service.api.http.problem_types import HEADERS_TOO_LARGE, URI_TOO_LONG, ProblemType
from service.api.http.problems import answer

MAX_URL_BYTES = 8_192  # path and query
MAX_HEADER_BYTES = 16_384  # names and values together
_HEAD: Final = "HEAD"
_OPTIONS: Final = "OPTIONS"
_NO_METHOD: Final = "NONE"  # has no route, so that the router lists its methods
_EVERYTHING: Final = "*"  # the target of an OPTIONS request about the server itself
_METHODS: Final = b"GET, HEAD, POST, PATCH, DELETE, OPTIONS"
_ONLY_HEAD: Final = "only_head"
_CONTINUE: Final = (b"expect", b"100-continue")


def only_head(scope: Scope) -> bool:
    """Whether the client expects no body. The method of such a request reads GET."""
    return _ONLY_HEAD in scope["state"]


class Gate:
    """Handles requests that the router never sees."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on unless it is too large."""
        http = cast("HTTPScope", scope)
        if http["method"] == _HEAD:
            await self._head(http, receive, send)
            return
        problem = oversized(http)
        if problem is not None:
            request: Request[Any, Any, Any] = Request(scope, receive, send)
            response = answer(problem, problem.meaning, headers={"connection": "close"})
            await response.to_asgi_response(None, request)(scope, receive, send)
        elif http["method"] == _OPTIONS:
            await self._options(http, receive, send)
        elif http["method"] not in READING and _CONTINUE in http["headers"]:
            waiting = _Waiting(receive, send)
            await self._app(scope, waiting.receive, waiting.send)
        else:
            await self._app(scope, receive, send)

    async def _options(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Lists the methods of a path, or of the server."""
        if scope["path"] != _EVERYTHING:
            asked = cast("Scope", {**scope, "method": _NO_METHOD})
            await self._app(asked, receive, _Options(send))
            return
        start: HTTPResponseStartEvent = {
            "type": "http.response.start",
            "status": 204,
            "headers": [(b"allow", _METHODS)],
        }
        await send(start)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _head(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Answers like GET, without the body."""
        asked = cast("Scope", {**scope, "method": "GET"})
        asked.setdefault("state", {})[_ONLY_HEAD] = True
        head = _Head(receive, send)
        try:
            await self(asked, head.receive, head.send)
        finally:  # set by the router
            cast("dict[str, Any]", scope).update(
                {name: asked[name] for name in ("path", "path_template") if name in asked}
            )


def oversized(scope: HTTPScope) -> ProblemType | None:
    """The part of a request that is too large."""
    if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_URL_BYTES:
        return URI_TOO_LONG
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
        return HEADERS_TOO_LARGE
    return None


class _Head:
    """Sends the head of a response and leaves out its body.

    A handler that continues, such as a stream, is informed that the client has disconnected.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._answered = False

    async def send(self, message: Message) -> None:
        """Sends the head and ends the response."""
        if message["type"] == "http.response.start":
            self._answered = True
            await self._send(message)
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def receive(self) -> Any:
        """The messages of the request, until it is answered."""
        return {"type": "http.disconnect"} if self._answered else await self._receive()


class _Waiting:
    """Ends the connection of a client that waited for `100 Continue` in vain. Its body may still
    come, so later bytes could be taken for it."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._told = False

    async def receive(self) -> Any:
        """Makes the server send `100 Continue`."""
        self._told = True
        return await self._receive()

    async def send(self, message: Message) -> None:
        """Sends the response."""
        if message["type"] == "http.response.start" and not self._told:
            message["headers"] = [*message["headers"], (b"connection", b"close")]
        await self._send(message)


class _Options:
    """Converts the router's error for a method into the list of allowed methods."""

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
