"""`coursewire demo`: the whole service with a sandbox upstream, shown in a terminal."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
from redis.exceptions import RedisError

from service.certificate_authorities import CERT_DIR, CERT_FILE
from service.commands.console import open_console
from service.commands.demo.performance import Performance
from service.commands.demo.terminal import Terminal
from service.domain.errors import StartError
from service.local.supervisor.output import console_sink
from service.local.supervisor.supervisor import Supervisor
from service.logs import configure
from service.secret_files import SUFFIX
from service.settings import PREFIX, Settings
from service.stop_signals import StopSignals
from service.storage.redis.client import open_async
from service.storage.redis.server_info import is_empty

LOG_FILE: Final = "demo.log"

_TAIL_LINES: Final = 30


def demo(*, events: int | None, timeout: float, keep: bool) -> int:
    """Run the demo until SIGINT or SIGTERM, or until `events` events are verified and agree with
    the sandbox's log. Returns the exit code.

    `timeout` bounds the start in seconds and, if `events` is given, the whole run. `keep` leaves
    the data directory behind. Raises StartError or SettingsError, or DemoFailedError with the
    missing or contradicting events.
    """
    return asyncio.run(_demo(events, timeout, keep=keep))


async def _demo(events: int | None, seconds: float, *, keep: bool) -> int:
    settings = await _settings()
    directory = Path(tempfile.mkdtemp(prefix="coursewire-demo-"))
    log = directory / LOG_FILE
    try:
        with log.open("w", encoding="utf-8") as file:
            configure("console", "info", "demo", stream=file)
            supervisor = Supervisor(
                msgspec.structs.replace(settings, data_dir=directory),
                sink=console_sink(file, colour=False),
            )
            terminal = Terminal(open_console(sys.stdout))
            performance = Performance(supervisor, terminal, log, seconds)
            interrupted = await _interruptible(performance.run(events), supervisor.hurry)
    except BrokenPipeError:  # standard output was closed
        raise
    except Exception:  # the last lines of the log explain it best
        _print_tail(log)
        raise
    finally:
        if keep:
            sys.stderr.write(f"everything is left in {directory}\n")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    return 128 + signal.SIGINT if interrupted and events is not None else 0


async def _settings() -> Settings:
    """Settings that share nothing with another service on this machine.

    The demo uses the Redis of the environment only if its database is empty, because its workers
    would otherwise process the registrations in it.
    """
    variable = f"{PREFIX}REDIS_URL"
    environment = {
        f"{PREFIX}ALLOWED_TARGETS": "127.0.0.0/8",
        f"{PREFIX}PORT": "0",
        f"{PREFIX}LOG_FORMAT": "console",
    }
    for name in (variable, f"{variable}{SUFFIX}", CERT_FILE, CERT_DIR):
        environment[name] = os.environ.get(name, "")
    settings = Settings.from_env(environment)
    if settings.redis_url is None:
        return settings
    redis = open_async(settings.redis_url)
    try:
        empty = await is_empty(redis)
    except (RedisError, OSError) as error:
        raise StartError(f"{variable} does not lead to a reachable Redis: {error}") from error
    finally:
        await redis.aclose()
    if not empty:
        raise StartError(
            f"the database in {variable} contains data; use an empty one, or unset it, and the "
            "demo starts its own"
        )
    return settings


async def _interruptible(work: Coroutine[Any, Any, None], hurry: Callable[[], None]) -> bool:
    """Run `work` to its end, or cancel it at the first signal; a second one shortens its clean-up.
    Returns whether a signal came."""
    task = asyncio.create_task(work)
    interrupted, signals = False, StopSignals()

    def on_signal() -> None:
        nonlocal interrupted
        again = signals.again()
        if again:
            hurry()
        if again or not interrupted:
            interrupted = True
            task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal)
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()
    return interrupted


def _print_tail(log: Path) -> None:
    with suppress(OSError), log.open(encoding="utf-8", errors="replace") as file:
        lines = "".join(deque(file, maxlen=_TAIL_LINES))
        sys.stderr.write(f"--- the end of the log (--keep leaves all of it there)\n{lines}---\n")
