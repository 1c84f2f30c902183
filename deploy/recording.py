"""Records the demo in a terminal as a moving picture, docs/images/demo.svg: run by
`make recording`. Nothing is invented: only pauses are shortened, and the token is masked."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import termios
import time
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "images" / "demo.svg"
ARGUMENTS = ("demo", "--events", "12")
COLUMNS, ROWS = 80, 24  # of the terminal, and how many are seen at a time
WIDTH, HEIGHT, MARGIN = 8.4, 18, 14  # of a character, of a line, around all
MAX_PAUSE = 0.9  # seconds
_TOKEN = re.compile(r"(?<=#token=)\S+")
_COLOURS = TerminalTheme(
    (13, 17, 23),
    (230, 237, 243),
    [
        *[(72, 79, 88), (255, 123, 114), (63, 185, 80), (210, 153, 34)],
        *[(88, 166, 255), (188, 140, 255), (57, 197, 207), (177, 186, 196)],
    ],
)
_HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<title>coursewire demo in a terminal</title>
<style>
text {{ font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  white-space: pre; fill: #e6edf3 }}
.b {{ font-weight: bold }} .d {{ fill: #8b949e }}
@media (prefers-reduced-motion: no-preference) {{
.l {{ animation: l 1ms both }} #all {{ animation: all {seconds}s step-end both }}
@keyframes l {{ from {{ visibility: hidden }} to {{ visibility: visible }} }}
@keyframes all {{ {steps} }} }}
</style>
<rect width="100%" height="100%" rx="8" fill="#0d1117"/>
<svg x="{margin}" y="{margin}" width="{inner_width}" height="{inner_height}">
<g id="all" transform="translate(0 {end})">
"""


class Line(NamedTuple):
    """A line of output, and when it was complete."""

    seconds: float
    text: str


def record() -> Iterator[Line]:
    """The output of the demo on a terminal."""
    process, terminal = pty.fork()
    if not process:
        os.environ |= {"TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
        os.execv(sys.executable, [sys.executable, "-m", "service.cli", *ARGUMENTS])  # noqa: S606 - this project's own command
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    rest = b""
    while True:
        try:
            data = os.read(terminal, 4096)
        except OSError:  # how Linux announces that the other end is closed
            data = b""
        if not data:
            break
        *lines, rest = (rest + data).split(b"\r\n")
        for line in lines:
            yield Line(time.monotonic(), line.decode())
    if os.waitpid(process, 0)[1]:
        raise SystemExit("the demo failed")


def drawn(text: Text, row: int) -> str:
    """The elements of one row, each stretch of a style at its column."""
    parts: list[str] = []
    column = 0
    for piece, style, _ in text.render(Console()):
        if stripped := piece.strip():
            x = (column + len(piece) - len(piece.lstrip())) * WIDTH
            attributes = ""
            if style is not None and (names := "b" * bool(style.bold) or "d" * bool(style.dim)):
                attributes = f' class="{names}"'
            if style is not None and style.color is not None:
                attributes += f' style="fill:{style.color.get_truecolor(_COLOURS).hex}"'
            parts.append(
                f'<text x="{x:g}" y="{(row + 0.75) * HEIGHT:g}" '
                f'textLength="{len(stripped) * WIDTH:g}"{attributes}>{escape(stripped)}</text>'
            )
        column += len(piece)
    return "".join(parts)


def picture(lines: list[Line]) -> str:
    """The recording, which plays once and then shows its end."""
    rows: list[str] = []
    scrolled, end = {0.0: 0}, 0
    at, previous = 0.0, lines[0].seconds
    for seconds, line in lines:
        at += min(seconds - previous, MAX_PAUSE)
        previous = seconds
        text = Text.from_ansi(_TOKEN.sub("...", line))
        # A terminal continues a line that is too long in the next row.
        for start in range(0, max(len(text), 1), COLUMNS):
            content = drawn(text[start : start + COLUMNS], len(rows))
            rows.append(f'<g class="l" style="animation-delay:{at:.2f}s">{content}</g>')
        top = -max(0, len(rows) - ROWS) * HEIGHT
        if top != end:
            scrolled[at] = end = top
    head = _HEAD.format(
        width=COLUMNS * WIDTH + 2 * MARGIN,
        height=ROWS * HEIGHT + 2 * MARGIN,
        inner_width=COLUMNS * WIDTH,
        inner_height=ROWS * HEIGHT,
        margin=MARGIN,
        seconds=round(at, 2),
        steps=" ".join(
            f"{when / at:.2%} {{ transform: translateY({top}px) }}"
            for when, top in scrolled.items()
        ),
        end=end,
    )
    return head + "\n".join(rows) + "\n</g></svg></svg>\n"


def main() -> int:
    """Writes the picture."""
    command = Line(time.monotonic(), "\x1b[1m$ coursewire " + " ".join(ARGUMENTS) + "\x1b[0m")
    PICTURE.write_text(picture([command, *record()]))
    sys.stdout.write(f"{PICTURE.name} has {PICTURE.stat().st_size / 1000:.0f} kB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
