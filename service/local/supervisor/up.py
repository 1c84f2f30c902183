"""`coursewire up`: runs the supervisor until a signal, and prints the addresses of the service."""

from __future__ import annotations

import asyncio
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from typing import TextIO, cast

import msgspec

from service.colour import wants_colour
from service.local.supervisor.child import either
from service.local.supervisor.output import Sink, SinkStream, console_sink, json_sink
from service.local.supervisor.programs import PROGRAMS, Program
from service.local.supervisor.supervisor import Supervisor
from service.logs import configure, get_logger
from service.settings import PREFIX, Settings
from service.stop_signals import StopSignals

_log = get_logger("supervisor")


def up(settings: Settings, programs: Sequence[Program] = PROGRAMS) -> None:
    """Run the service until SIGINT, SIGTERM or SIGHUP. Another signal, a second later or more, ends
    it at once.

    The log goes to standard output. Raises StartError, in one line, if the service cannot start.
    """
    asyncio.run(_up(settings, programs, sys.stdout))


async def _up(settings: Settings, programs: Sequence[Program], out: TextIO) -> None:
    colour = wants_colour(out)
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not out.isatty())
    settings = msgspec.structs.replace(settings, log_format="json" if as_json else "console")
    sink = json_sink(out) if as_json else console_sink(out, colour=colour)
    stream = cast("TextIO", SinkStream(sink, colour=colour))
    configure(settings.log_format, settings.log_level, "up", stream=stream)
    supervisor = Supervisor(settings, programs, sink=sink, colour=colour)
    stopping, signals = asyncio.Event(), StopSignals()

    def on_signal(name: str) -> None:
        if signals.again():
            supervisor.hurry()
        elif not stopping.is_set():
            _log.info("stopping; a second signal stops at once", signal=name)
            stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            loop.add_signal_handler(number, on_signal, number.name)
    starting = asyncio.create_task(_start(supervisor, sink, as_json=as_json))
    try:
        await either(starting, stopping.wait())
        if starting.done():
            starting.result()
        await stopping.wait()
    finally:
        starting.cancel()
        await asyncio.wait({starting})
        await supervisor.stop()
    _log.info("stopped")


async def _start(supervisor: Supervisor, sink: Sink, *, as_json: bool) -> None:
    begun = time.monotonic()
    await supervisor.start()
    await supervisor.ready()
    seconds = round(time.monotonic() - begun, 1)
    addresses = {
        "api": supervisor.api_url,
        **({"console": console_url(supervisor)} if supervisor.settings.console else {}),
        "docs": f"{supervisor.api_url}/schema",
        "metrics": f"{supervisor.api_url}/metrics",
        "token_file": str(supervisor.token_file or f"${PREFIX}ADMIN_TOKEN"),
        "try": curl_line(supervisor),
    }
    if as_json:
        _log.info("ready", seconds=seconds, **addresses)
        return
    sink("up", "")
    sink("up", f"Coursewire is ready after {seconds} s. Ctrl-C stops it.")
    for name, address in addresses.items():
        sink("up", f"  {name.replace('_', ' '):11} {address}")
    sink("up", "")


def console_url(supervisor: Supervisor) -> str:
    """The address of the console."""
    return f"{supervisor.api_url}/console"


def curl_line(supervisor: Supervisor) -> str:
    """A command that lists the integrations, with the token read from its file."""
    token = (
        f"$(cat {shlex.quote(str(supervisor.token_file))})"
        if supervisor.token_file is not None
        else f"${PREFIX}ADMIN_TOKEN"
    )
    return f'curl -H "Authorization: Bearer {token}" {supervisor.api_url}/v1/integrations'
