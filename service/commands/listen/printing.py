"""Prints pushes, each in one line that cannot act on the terminal."""

from __future__ import annotations

from typing import Final

import msgspec
from rich.text import Text

from service.commands.console import UNSAFE, printable
from service.commands.listen.push import Event, Push

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
    return UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
