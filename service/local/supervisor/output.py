"""One readable log of the output of all programs."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

Sink = Callable[[str, str], None]  # takes a program's name and a line of its output

_COLOURS = ("36", "33", "32", "35", "34", "96", "93", "92", "95", "94")
_NAME_WIDTH = len("scheduler")


def console_sink(out: TextIO, *, colour: bool) -> Sink:
    """Lines after the name of their program, each name in its colour."""
    prefixes: dict[str, str] = {}

    def write(name: str, line: str) -> None:
        if name not in prefixes:
            shown = f"{name:{_NAME_WIDTH}} |"
            code = _COLOURS[len(prefixes) % len(_COLOURS)]
            prefixes[name] = f"\x1b[{code}m{shown}\x1b[0m " if colour else f"{shown} "
        _write_line(out, prefixes[name] + line)

    return write


def json_sink(out: TextIO) -> Sink:
    """JSON lines unchanged, and other text (such as a traceback) converted to JSON lines."""

    def write(name: str, line: str) -> None:
        if not line.startswith("{"):
            line = json.dumps({"event": line, "component": name})
        _write_line(out, line)

    return write


def _write_line(out: TextIO, line: str) -> None:
    with suppress(OSError):  # the reader has closed the pipe; the service continues
        out.write(line + "\n")
        out.flush()


class SinkStream(io.TextIOBase):
    """The supervisor's own log, as a stream that passes its lines to a sink."""

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
