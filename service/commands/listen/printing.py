"""Prints pushes, each in one line that cannot act on the terminal."""

from __future__ import annotations

import errno
import os
import re
from typing import Final, TextIO

import msgspec
from rich.console import Console
from rich.text import Text

from service.commands.listen.push import Event, Push
from service.logs import wants_colour

_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class _Console(Console):
    """One whose reader may leave, as in `coursewire listen | head`."""

    def on_broken_pipe(self) -> None:
        try:
            super().on_broken_pipe()
        except SystemExit:
            # An end that says why, so that callers can tell it from others and clean up.
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from None


def open_console(out: TextIO) -> Console:
    """A console on `out` that writes escape sequences only where colours are wanted.

    Printing raises BrokenPipeError, once, when nobody reads `out` any more.
    """
    return _Console(
        file=out,
        color_system="auto" if wants_colour(out) else None,
        highlight=False,
        markup=False,
        emoji=False,
    )


def printable(text: str) -> str:
    """`text` without characters that would move the cursor or reorder the line."""
    return _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", text)


def fitted(text: str, width: int) -> str:
    """`text` made printable and cut to `width` columns, an ellipsis marking the cut."""
    cut = Text(printable(text))
    cut.truncate(width, overflow="ellipsis")
    return cut.plain


STYLES: Final = {
    "created": "bold green",
    "updated": "bold yellow",
    "deleted": "bold red",
}


def describe(push: Push, width: int | None) -> Text:
    """One line about a push, cut to `width` columns where given."""
    line = Text(no_wrap=True)
    line.append(f"{push.at.astimezone():%H:%M:%S} ", "dim")
    if push.event is None:
        line.append("refused ✗ ", "bold red")
        line.append(printable(push.refusal or ""))
        line.append(f"  {printable(push.id or 'without an id')}", "dim")
    else:
        _describe_event(line, push, push.event)
    if width is not None:
        line.truncate(width, overflow="ellipsis")
    return line


def _describe_event(line: Text, push: Push, event: Event) -> None:
    data = event.data
    kind = printable(event.type)
    line.append("✓ ", "green")
    line.append(f"{kind:<15} ", STYLES.get(kind.rpartition(".")[2], "bold"))
    if push.replay:
        line.append("replay  ", "blue")
    elif push.times > 1:
        line.append(f"duplicate, {push.times} times now  ", "magenta")
    if push.altered:
        line.append("WITH OTHER BYTES THAN BEFORE  ", "bold red")
    if data.sequence is not None:
        line.append(f"#{data.sequence} ", "dim")
    line.append(printable(data.title or data.course_id or data.event_id or ""))
    details = [*data.changed, *filter(None, (data.reason, data.evidence))]
    if details:
        line.append("  " + printable(", ".join(details)), "cyan")


def one_line(body: bytes) -> str:
    """A JSON body on one line, in which nothing acts on a terminal."""
    text = msgspec.json.format(body, indent=-1).decode()
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
