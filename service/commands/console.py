"""A terminal output whose lines cannot act on the terminal, for text from other systems."""

from __future__ import annotations

import errno
import os
import re
from typing import Final, TextIO

from rich.console import Console
from rich.text import Text

from service.colour import wants_colour

UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class _Console(Console):
    """A console whose reader may close the pipe, as in `coursewire listen | head`."""

    def on_broken_pipe(self) -> None:
        try:
            super().on_broken_pipe()
        except SystemExit:
            # An exception, so that callers can distinguish this end and clean up.
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from None


def open_console(out: TextIO) -> Console:
    """A console on `out` that writes escape sequences only with colours. Printing raises
    BrokenPipeError once when the reader has closed `out`.
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
    return UNSAFE.sub("\N{REPLACEMENT CHARACTER}", text)


def fitted(text: str, width: int) -> str:
    """`text` made printable and cut to `width` columns, an ellipsis marking the cut."""
    cut = Text(printable(text))
    cut.truncate(width, overflow="ellipsis")
    return cut.plain
