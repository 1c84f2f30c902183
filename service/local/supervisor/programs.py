"""The programs of `coursewire up`, and the order in which they stop."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping

import msgspec

from service.settings import PREFIX


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """One child process of the supervisor.

    Programs of the lowest `stop_order` are stopped first, and have ended before the next are
    stopped; programs that still run after `drain_seconds` are killed. `environment` is added to the
    supervisor's own and to the settings. A program with another `stop_signal` than SIGTERM ignores
    SIGTERM, because systemd sends that to every process of a unit at once.
    """

    name: str
    argv: tuple[str, ...]
    stop_order: int
    stop_signal: signal.Signals = signal.SIGTERM
    drain_seconds: float = 10.0
    environment: Mapping[str, str] = msgspec.field(default_factory=dict)
    inherit_fds: tuple[int, ...] = ()


PROGRAMS: tuple[Program, ...] = (
    Program(
        name="worker",
        argv=(sys.executable, "-m", "workers.worker"),
        stop_order=1,
        drain_seconds=25.0,  # the worker itself drains for 20
    ),
    Program(
        name="scheduler",
        argv=(sys.executable, "-m", "workers.scheduler"),
        stop_order=1,
    ),
    Program(
        name="api",
        argv=(sys.executable, "-m", "service.cli", "api"),
        stop_order=2,
        # No other API takes over from this one, so clients need no time to switch.
        environment={f"{PREFIX}SHUTDOWN_DELAY_SECONDS": "0"},
    ),
)
VALKEY_STOP_ORDER = 9
