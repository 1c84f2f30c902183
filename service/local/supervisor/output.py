"""One readable log of what all programs write."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

Sink = Callable[[str, str], None]  # takes a program's name and a line it wrote

_COLOURS = ("36", "33", "32", "35", "34", "96", "93", "92", "95", "94")
_NAME_WIDTH = len("scheduler")


def console_sink(out: TextIO, *, colour: bool) -> Sink:
    """Lines behind the name of the program that wrote them, each name in its colour."""
    prefixes: dict[str, str] = {}

    def write(name: str, line: str) -> None:
        if name not in prefixes:
            shown = f"{name:{_NAME_WIDTH}} |"
            code = _COLOURS[len(prefixes) % len(_COLOURS)]
            prefixes[name] = f"\x1b[{code}m{shown}\x1b[0m " if colour else f"{shown} "
        _write_line(out, prefixes[name] + line)

    return write


def json_sink(out: TextIO) -> Sink:
    """JSON lines as they are, and other text (a traceback, say) made into such lines."""

    def write(name: str, line: str) -> None:
        if not line.startswith("{"):
            line = json.dumps({"event": line, "component": name})
        _write_line(out, line)

    return write


def _write_line(out: TextIO, line: str) -> None:
    with suppress(OSError):  # the reader of the log has gone; the service goes on
        out.write(line + "\n")
        out.flush()


class SinkStream(io.TextIOBase):
    """The supervisor's own log, as a stream whose lines go to a sink."""

    def __init__(self, sink: Sink, *, colour: bool) -> None:
        self._sink = sink
        self._colour = colour

    def write(self, text: str) -> int:
        """Passes each line on to the sink."""
        for line in text.splitlines():
            self._sink("up", line)
        return len(text)

    def isatty(self) -> bool:
        """Whether lines may be coloured."""
        return self._colour
