"""The sandbox as a process: its socket, its signals and its log."""

from __future__ import annotations

import logging
import shlex
import signal
import socket
import sys
from types import FrameType
from typing import NoReturn
from urllib.parse import quote, urlsplit

import uvicorn

from service.sandbox.app import create_sandbox, logger
from service.sandbox.config import SandboxConfig

__all__ = ["SandboxConfig", "create_sandbox", "guide", "run"]

_STOP_SECONDS = 2
"""Seconds for running requests to finish when the process stops."""
_KEEP_ALIVE_SECONDS = 75


class _Server(uvicorn.Server):
    """Prints its address once it listens and, unless it is quiet, instructions."""

    def __init__(self, config: uvicorn.Config, sandbox: SandboxConfig) -> None:
        super().__init__(config)
        self._sandbox = sandbox

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            where = f"[{host}]" if ":" in host else host
            url = f"http://{where}:{port}"
            sys.stdout.write(f"sandbox listening on {url}/v1\n")
            if not self._sandbox.quiet:
                sys.stdout.write(guide(self._sandbox, url))
            sys.stdout.flush()


def guide(config: SandboxConfig, url: str) -> str:
    """How to connect Coursewire to the sandbox at `url`, and how to change courses.

    Lines for people; addresses are quoted for a shell.
    """
    host = urlsplit(url).hostname
    lines = [
        f"  base_url     {url}/v1",
        f"  api_key      {config.api_key}",
        *(f"  upstream_id  {upstream_id}" for upstream_id in config.integrations),
        *(
            """  change some  curl -d '[{"op":"edit","count":3}]' """
            + shlex.quote(f"{url}/control/integrations/{quote(upstream_id, safe=':')}/changes")
            for upstream_id in config.integrations[:1]
        ),
        f"  Add {host} to COURSEWIRE_ALLOWED_TARGETS of Coursewire, or it refuses this address.",
    ]
    return "".join(f"{line}\n" for line in lines)


def run(config: SandboxConfig) -> None:
    """Serve until SIGINT or SIGTERM; to be called in the main thread.

    Once it accepts requests it prints `sandbox listening on http://HOST:PORT/v1` and, unless it is
    quiet, the text of `guide`. Raises OSError if the address cannot be bound.
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
                ),
                config,
            )
            server.run(sockets=[listener])
    except KeyboardInterrupt:
        pass
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
        logger.removeHandler(handler)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """Used before the server handles signals itself, and when it passes them on after it
    stopped."""
    raise KeyboardInterrupt
