"""Serves the API, and stops in an order that leaves no request unanswered."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
import sys
from contextlib import suppress
from types import FrameType
from typing import Final

import uvicorn
from litestar import Litestar

from service.api.http.size_limits import MAX_HEADER_BYTES, MAX_URL_BYTES
from service.api.http.slow_clients import BoundedProtocol
from service.bootstrap import Services
from service.garbage_collection import IN_API, collect_less
from service.logs import get_logger
from service.settings import Settings
from service.stop_signals import StopSignals
from service.storage.events.log_follower import MAX_LISTENERS

GRACE_SECONDS: Final = 10  # how long requests under way may take to finish when the API stops
_RESERVED: Final = 1_000  # connections beyond those of requests that wait for events
_OTHER_FILES: Final = 128  # open at once besides the connections
_BACKLOG = 1024
MAX_HEAD_BYTES: Final = 2 * (MAX_URL_BYTES + MAX_HEADER_BYTES)  # longer heads are not read
_STARTUP_FAILED = 3  # the exit code of uvicorn's own command
_CLOSE: Final = (b"connection", b"close")

_log = get_logger("api")


class _Server(uvicorn.Server):
    """At a signal, `/readyz` first returns 503 for `delay` seconds while the server still serves
    requests.

    Load balancers then send requests elsewhere and clients close their connections. After that the
    server accepts no connections, and answers the requests that wait for events, because they would
    wait until the grace period ends. Ctrl-C, or a second signal, ends the delay.
    """

    def __init__(
        self, config: uvicorn.Config, app: Litestar, connections: int, delay: float
    ) -> None:
        super().__init__(config)
        self._app = app
        self._connections = connections
        self._delay = delay
        self._stops_at: float | None = None  # by the loop's clock
        self._in_a_hurry = False
        self._signals = StopSignals()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Records a signal."""
        again = self._signals.again()
        self._in_a_hurry |= again or sig == signal.SIGINT
        if again or not self.should_exit:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Checks ten times a second whether to stop."""
        if not await super().on_tick(counter):
            return False
        now = asyncio.get_running_loop().time()
        if self._stops_at is None:
            self._stops_at = now + self._delay
            self._app.state.stopping = True
            if self._delay and not self._in_a_hurry:
                _log.info("API stopping", serves_for_seconds=self._delay)
        state = self.server_state
        state.default_headers = [*(one for one in state.default_headers if one != _CLOSE), _CLOSE]
        return self._in_a_hurry or now >= self._stops_at

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        services: Services = self._app.state.services
        spare = max(self._connections - _RESERVED, self._connections // 2)
        services.tail.max_listeners = min(MAX_LISTENERS, spare)
        collect_less(IN_API)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        services: Services = self._app.state.services
        services.tail.stop()
        await super().shutdown(sockets)


def serve(app: Litestar, settings: Settings) -> None:
    """Serves until SIGINT or SIGTERM. Exits if it cannot start."""
    connections = _connections()
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=BoundedProtocol,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        log_config=None,  # `logs` decides where lines go
        access_log=False,  # the application logs each request with its ids
        server_header=False,
        ws="none",
        proxy_headers=False,  # the application reads them from trusted proxies
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=settings.keep_alive_seconds,
        limit_concurrency=connections,  # open at once; others are refused
        backlog=_BACKLOG,
    )
    server = _Server(config, app, connections, settings.shutdown_delay_seconds)
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(_STARTUP_FAILED)


def _connections() -> int:
    """The maximum number of open connections, after raising the limit of open files as far as
    possible."""
    wanted = MAX_LISTENERS + _RESERVED + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(ValueError, OSError):  # the system may have its own limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    if soft == resource.RLIM_INFINITY or soft > wanted:
        soft = wanted
    return max(_OTHER_FILES, soft - _OTHER_FILES)
