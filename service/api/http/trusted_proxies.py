"""Determines the client of requests that come through trusted proxies."""

from __future__ import annotations

import ipaddress
from typing import Final, cast

from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from service.domain.access.fronting import client_address, is_among, read_address

_FOR: Final = b"x-forwarded-for"
_PROTO: Final = b"x-forwarded-proto"
_SCHEMES: Final = ("http", "https")


class Proxies:
    """Reads `X-Forwarded-For` and `X-Forwarded-Proto` on connections from trusted addresses only,
    because any other client could forge them."""

    def __init__(self, app: ASGIApp, trusted: tuple[str, ...]) -> None:
        self._app = app
        self._trusted = tuple(ipaddress.ip_network(one) for one in trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on with the client that the proxies report."""
        http = cast("HTTPScope", scope)
        client = http["client"]
        peer = None if client is None else read_address(f"[{client[0]}]")
        if client is not None and peer is not None and is_among(peer, self._trusted):
            forwarded = _elements(http, _FOR)
            if forwarded:
                # The proxy's port is not the client's.
                http["client"] = (str(client_address(peer, forwarded, self._trusted)), 0)
            scheme = next(iter(_elements(http, _PROTO)), "").lower()
            if scheme in _SCHEMES:
                http["scheme"] = scheme
        await self._app(scope, receive, send)


def _elements(scope: HTTPScope, name: bytes) -> list[str]:
    """The elements of a list in a header, however many times the header was sent."""
    values = [value.decode("latin-1") for key, value in scope["headers"] if key == name]
    return [element.strip() for value in values for element in value.split(",") if element.strip()]
