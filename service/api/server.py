"""Serves the API, and lets go of the requests that wait for events when it is told to stop."""

from __future__ import annotations

import resource
import socket
import sys
from contextlib import suppress
from typing import Final

import uvicorn
from litestar import Litestar

from service.api.gate import MAX_HEADER_BYTES, MAX_URL_BYTES
from service.api.protocol import BoundedProtocol
from service.bootstrap import Services
from service.storage.tail import MAX_LISTENERS

_GRACE_SECONDS = 10  # how long requests under way may take to finish when the API stops
_KEEP_ALIVE_SECONDS = 30
_RESERVED: Final = 1_000  # connections beyond those of requests that wait for events
_OTHER_FILES: Final = 128  # open at once besides the connections
_BACKLOG = 1024
MAX_HEAD_BYTES: Final = 2 * (MAX_URL_BYTES + MAX_HEADER_BYTES)  # beyond, a head is not even read
_STARTUP_FAILED = 3  # what uvicorn's own command exits with


class _Server(uvicorn.Server):
    """Knows of the listeners: without a word they would wait until the grace is over."""

    def __init__(self, config: uvicorn.Config, app: Litestar, connections: int) -> None:
        super().__init__(config)
        self._app = app
        self._connections = connections

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        services: Services = self._app.state.services
        spare = max(self._connections - _RESERVED, self._connections // 2)
        services.tail.max_listeners = min(MAX_LISTENERS, spare)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        services: Services = self._app.state.services
        services.tail.stop()
        await super().shutdown(sockets)


def serve(app: Litestar, host: str, port: int) -> None:
    """Serves until SIGINT or SIGTERM. Exits if it cannot start."""
    connections = _connections()
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=BoundedProtocol,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        log_config=None,  # lines go where `logs` sends them
        access_log=False,  # the application logs each request with its ids
        server_header=False,
        ws="none",
        # A proxy in front is not trusted to say who is asking.
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        limit_concurrency=connections,  # open at once; further ones are refused
        backlog=_BACKLOG,
    )
    server = _Server(config, app, connections)
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(_STARTUP_FAILED)


def _connections() -> int:
    """How many connections may be open at once, after the limit of open files has been raised as
    far as it goes."""
    wanted = MAX_LISTENERS + _RESERVED + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(ValueError, OSError):  # the system may have a limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    if soft == resource.RLIM_INFINITY or soft > wanted:
        soft = wanted
    return max(_OTHER_FILES, soft - _OTHER_FILES)
