"""Serves the API under the path prefix of a proxy, whether the proxy strips it or not."""

from __future__ import annotations

from litestar.datastructures import MutableScopeHeaders
from litestar.types import ASGIApp, Message, Receive, Scope, Send

_LOCATION = "location"


class Prefix:
    """Removes the prefix from the path of a request, and adds it to the path in `Location`."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on."""
        path = scope["path"]
        if path == self._prefix or path.startswith(f"{self._prefix}/"):
            scope["path"] = path.removeprefix(self._prefix) or "/"

        async def send_prefixed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableScopeHeaders.from_message(message)
                location = headers.get(_LOCATION)
                if location is not None:
                    headers[_LOCATION] = self._prefix + location
            await send(message)

        await self._app(scope, receive, send_prefixed)
