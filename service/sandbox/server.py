"""The sandbox as a process: its socket, its signals and its log."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from types import FrameType
from typing import NoReturn

import uvicorn

from service.sandbox.app import SandboxConfig, create_sandbox, logger

__all__ = ["SandboxConfig", "create_sandbox", "run"]

_STOP_SECONDS = 2
"""How long requests under way may take to finish when the process is told to stop."""
_KEEP_ALIVE_SECONDS = 75


class _Server(uvicorn.Server):
    """Says where it listens once it does."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            where = f"[{host}]" if ":" in host else host
            sys.stdout.write(f"sandbox listening on http://{where}:{port}/v1\n")
            sys.stdout.flush()


def run(config: SandboxConfig) -> None:
    """Serve until SIGINT or SIGTERM; to be called in the main thread.

    Once it accepts requests it prints `sandbox listening on http://HOST:PORT/v1`. Raises
    OSError when the address cannot be bound.
    """
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s sandbox %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING if config.quiet else logging.INFO)
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    before = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with socket.create_server((config.host, config.port), family=family) as listener:
            server = _Server(
                uvicorn.Config(
                    create_sandbox(config),
                    access_log=False,
                    # The endpoint dates its answers itself, by its own clock.
                    date_header=False,
                    log_level="warning",
                    timeout_graceful_shutdown=_STOP_SECONDS,
                    timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                )
            )
            server.run(sockets=[listener])
    except KeyboardInterrupt:
        pass
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
        logger.removeHandler(handler)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """Before the server takes signals over, and when it passes them on after it stopped."""
    raise KeyboardInterrupt
