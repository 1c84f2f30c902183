"""Shows answers: tables and text on a terminal, JSON elsewhere; nothing in them acts on either."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, TextIO

from rich.text import Text

from service.commands.console import fitted, open_console, printable

_STYLES: Final = {
    **dict.fromkeys(("active", "completed", "delivered", "live", "ok"), "green"),
    **dict.fromkeys(("pending", "queued", "running", "paused", "review", "held", "open"), "yellow"),
    **dict.fromkeys(("error", "failed", "dead", "parked", "disabled", "quarantined"), "red"),
}
_NOTHING: Final = "-"
_WIDEST: Final = 60  # columns of a cell
_MILLISECONDS = re.compile(r"(T\d\d:\d\d:\d\d)\.\d{3}Z$")


def pick(item: Any, path: str) -> Any:
    """What stands at a path of names separated by dots, None if nothing does."""
    for part in path.split("."):
        match item, part:
            case dict(), _:
                item = item.get(part)
            case list(), "#":
                item = len(item)
            case list(), "-1":
                item = item[-1] if item else None
            case _:
                return None
    return item


def cell(value: Any) -> str:
    """A value in one line."""
    match value:
        case None | "":
            return _NOTHING
        case bool():
            return "yes" if value else "no"
        case dict():
            return ",".join(f"{name}={cell(one)}" for name, one in value.items()) or _NOTHING
        case list():
            return ",".join(map(cell, value)) or _NOTHING
    return printable(_MILLISECONDS.sub(r"\1Z", str(value)))


def raw(value: Any) -> str:
    """A value as scripts want it: text as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def show_json(document: Any, out: TextIO, *, indent: int | None = 2) -> None:
    """Prints a document as it is, in ASCII, so that nothing in it acts on a terminal."""
    out.write(json.dumps(document, indent=indent) + "\n")


def show_list(page: dict[str, Any], columns: Iterable[str], out: TextIO) -> None:
    """Prints what a page says of its list, and its items in rows."""
    about = {name: one for name, one in page.items() if name not in ("items", "next", "cursor")}
    if about:
        show_fields(about, out)
    if page["items"]:
        _show_table(page["items"], columns, out)
    elif not about:
        out.write("There are none.\n")


def _show_table(items: Sequence[Any], columns: Iterable[str], out: TextIO) -> None:
    """Prints items in rows, without the columns that none of them has anything in. A row may be
    wider than the terminal, so that ids stay whole."""
    shown: list[list[Text]] = []
    for path in columns:
        cells = [fitted(cell(pick(item, path)), _WIDEST) for item in items]
        if set(cells) != {_NOTHING}:
            heading = Text(_heading(path), style="bold")
            column = [heading, *(Text(text, style=_STYLES.get(text, "")) for text in cells)]
            width = max(text.cell_len for text in column)
            for text in column:
                text.pad_right(width - text.cell_len)
            shown.append(column)
    console = open_console(out)
    for row in zip(*shown, strict=True):
        line = Text("  ").join(row)
        line.rstrip()
        console.print(line, soft_wrap=True)


def _heading(path: str) -> str:
    """The last name of a path that says something."""
    *before, last = path.split(".")
    return (before[-1] if last in ("#", "code") else last).replace("_", " ")


def show_line(item: Any, columns: Iterable[str], out: TextIO) -> None:
    """Prints an item as one line, where there is no table yet to be a row of."""
    text = Text("  ").join(Text(cell(pick(item, path))) for path in columns)
    open_console(out).print(text, soft_wrap=True)


def show_fields(document: dict[str, Any], out: TextIO) -> None:
    """Prints the fields of an object, one in a line or, where it holds more, in several."""
    console = open_console(out)
    for line in _lines(document, ""):
        console.print(line, soft_wrap=True)


def _lines(value: dict[str, Any], indent: str) -> Iterable[Text]:
    width = max((len(name) for name in value), default=0)
    for name, one in value.items():
        label = Text(indent + printable(name).ljust(width), style="bold")
        nested = [one] if one and isinstance(one, dict) else one
        if isinstance(nested, list) and nested and all(isinstance(each, dict) for each in nested):
            yield label
            for position, each in enumerate(nested):
                if position:
                    yield Text(f"{indent}  -")
                yield from _lines(each, f"{indent}  ")
        else:
            text = cell(one)
            yield label.append("  " + text, style=_STYLES.get(text, "not bold"))
