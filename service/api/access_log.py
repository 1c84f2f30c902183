"""Logs one line per request."""

from __future__ import annotations

import time
from typing import cast

from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from service.logs import get_logger

_log = get_logger("api")
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})  # asked every few seconds by machines


class AccessLog(ASGIMiddleware):
    """Notes the method, path, status and duration of each request once it is answered."""

    scopes = (ScopeType.HTTP,)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Passes the request on and logs it."""
        started = time.perf_counter()
        status = 500

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
            await send(message)

        try:
            await next_app(scope, receive, send_noting)
        finally:
            log = _log.debug if scope["path"] in _QUIET else _log.info
            log(
                "request",
                method=cast("HTTPScope", scope)["method"],
                path=scope["path"],
                status=status,
                milliseconds=round((time.perf_counter() - started) * 1000, 1),
            )
