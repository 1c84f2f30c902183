"""Lets web pages of configured origins call the API (CORS).

The framework's own layer runs after authentication: its error responses would lack the headers, so
a page could not read them, and a preflight would never reach it.
"""

from __future__ import annotations

from typing import Final, cast

from litestar.datastructures import Headers, MutableScopeHeaders
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

_METHODS: Final = "GET, HEAD, POST, PATCH, DELETE, OPTIONS"
_REQUEST_HEADERS: Final = "authorization, content-type, idempotency-key, if-match, last-event-id"
_EXPOSED: Final = (
    "Allow, ETag, Idempotency-Replayed, Location, Retry-After, WWW-Authenticate, X-Request-ID"
)
_MAX_AGE_SECONDS: Final = 600  # how long a browser caches the response to a preflight


class Cors:
    """Without credentials: a page sends its token in `Authorization`, and there are no cookies."""

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        self._app = app
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers preflights of the origins, and passes all other requests on."""
        headers = Headers.from_scope(scope)
        origin = headers.get("origin", "")
        allowed = origin in self._origins
        method = cast("HTTPScope", scope)["method"]
        if allowed and method == "OPTIONS" and "access-control-request-method" in headers:
            await _preflight(origin, headers.get("access-control-request-headers"), send)
            return

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                marked = MutableScopeHeaders.from_message(message)
                marked["vary"] = "Origin"
                if allowed:
                    marked["access-control-allow-origin"] = origin
                    marked["access-control-expose-headers"] = _EXPOSED
            await send(message)

        await self._app(scope, receive, send_marked)


async def _preflight(origin: str, wanted: str | None, send: Send) -> None:
    """Allows any header, because headers that a page's libraries add, such as for tracing, do no
    harm."""
    headers = {
        "access-control-allow-origin": origin,
        "access-control-allow-methods": _METHODS,
        "access-control-allow-headers": wanted or _REQUEST_HEADERS,
        "access-control-max-age": str(_MAX_AGE_SECONDS),
        "vary": "Origin, Access-Control-Request-Headers",
    }
    await send(
        {
            "type": "http.response.start",
            "status": 204,
            "headers": [
                (name.encode(), value.encode("latin-1")) for name, value in headers.items()
            ],
        }
    )
    await send({"type": "http.response.body", "body": b"", "more_body": False})
