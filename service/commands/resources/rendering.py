"""Prints responses: tables and text on a terminal, JSON elsewhere; neither can act on the
terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, TextIO

from rich.cells import cell_len
from rich.text import Text

from service.commands.console import fitted, open_console, printable

_STYLES: Final = {
    **dict.fromkeys(("active", "completed", "delivered", "live", "ok"), "green"),
    **dict.fromkeys(("pending", "queued", "running", "paused", "review", "held", "open"), "yellow"),
    **dict.fromkeys(("error", "failed", "dead", "parked", "disabled", "quarantined"), "red"),
}
_NOTHING: Final = "-"
_WIDEST: Final = 60  # columns of a cell
_NARROWEST: Final = 8
_ID: Final = re.compile(r"(^|[._])(ids?|actor|at|timestamp)$")  # paths whose values are never cut
_POSITION: Final = re.compile(r"-?\d{1,9}")
_UNKNOWN: Final = object()
_MILLISECONDS = re.compile(r"(T\d\d:\d\d:\d\d)\.\d{3}Z$")


def pick(item: Any, path: str, unknown: Any = None) -> Any:
    """The value at a path of names and positions separated by dots, `unknown` if there is no such
    field; `#` counts a list, `answer` is the receiver's response in an attempt."""
    for part in path.split("."):
        match item, part:
            case dict(), "answer" if "excerpt" in item:
                item = _answer(item)
            case dict(), _ if part in item:
                item = item[part]
            case list(), "#":
                item = len(item)
            case list(), _ if _POSITION.fullmatch(part):
                item = item[int(part)] if -len(item) <= int(part) < len(item) else None
            case None, _:
                return None
            case _:
                return unknown
    return item


def _answer(attempt: dict[str, Any]) -> Any:
    words = " ".join(attempt["excerpt"].split())
    if attempt["outcome"] not in ("status", "delivered"):
        return attempt["error"]
    return f"{attempt['status']}: {words}" if words else attempt["status"]


def wanted(items: Sequence[Any], path: str) -> list[Any]:
    """The value at a path of each item; of an event, also at a path of its data.

    Raises KeyError with the known names if no item has such a field.
    """
    found = [pick(item, _inside(item, path), _UNKNOWN) for item in items]
    if items and all(one is _UNKNOWN for one in found):
        raise KeyError(", ".join(_names(items[0], path)))
    return [None if one is _UNKNOWN else one for one in found]


def _inside(item: Any, path: str) -> str:
    if isinstance(pick(item, "data"), dict) and pick(item, path, _UNKNOWN) is _UNKNOWN:
        return f"data.{'event_id' if path == 'id' else path}"
    return path


def _names(item: Any, path: str) -> list[str]:
    """The names that are known at the point where a path fails, with those one level below."""
    before = path.rpartition(".")[0]
    parent = pick(item, before) if before else item
    match parent:
        case dict():
            below = {name: one if isinstance(one, dict) else {} for name, one in parent.items()}
            paths = [
                p for name, one in below.items() for p in (name, *(f"{name}.{k}" for k in one))
            ]
        case list():
            paths = [str(position) for position in range(len(parent))]
        case _ if before:
            return _names(item, before)
        case _:
            paths = []
    return [f"{before}.{one}".removeprefix(".") for one in paths]


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
    """A value for scripts: text unquoted, all others as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def show_json(document: Any, out: TextIO, *, indent: int | None = 2) -> None:
    """Prints a document as it is, in ASCII, so that nothing in it acts on a terminal."""
    out.write(json.dumps(document, indent=indent) + "\n")


def show_list(page: dict[str, Any], columns: Iterable[str], out: TextIO) -> None:
    """Prints the other members of a page, and its items in rows."""
    about = {name: one for name, one in page.items() if name not in ("items", "next", "cursor")}
    if about:
        show_fields(about, out)
    if page["items"]:
        show_table(page["items"], columns, out)
    elif not about:
        out.write("There are none.\n")


def show_table(items: Sequence[Any], columns: Iterable[str], out: TextIO) -> None:
    """Prints items in rows, without empty columns.

    Rows that are wider than the terminal first lose the columns that are the same in all of them,
    which a line above then lists, and then the ends of texts; ids stay whole.
    """
    console = open_console(out)
    table = {path: [cell(pick(item, path)) for item in items] for path in columns}
    table = {path: cells for path, cells in table.items() if set(cells) != {_NOTHING}}
    shown: list[list[Text]] = []
    widths = _widths(table, console.width)
    if dropped := [f"{_heading(path)} {table[path][0]}" for path in table if path not in widths]:
        console.print(Text(f"In each row: {', '.join(dropped)}"), soft_wrap=True)
    for path, width in widths.items():
        column = [Text(fitted(_heading(path), width), style="bold")]
        column += (Text(fitted(text, width), style=_STYLES.get(text, "")) for text in table[path])
        for text in column:
            text.pad_right(width - text.cell_len)
        shown.append(column)
    for row in zip(*shown, strict=True):
        line = Text("  ").join(row)
        line.rstrip()
        console.print(line, soft_wrap=True)


def _widths(table: dict[str, list[str]], room: int) -> dict[str, int]:
    """The widths of the remaining columns."""
    widths = {
        path: max(cell_len(_heading(path)), *map(cell_len, cells)) for path, cells in table.items()
    }
    texts = [path for path in widths if not _ID.search(path)]
    widths |= {path: min(widths[path], _WIDEST) for path in texts}
    over = sum(widths.values()) + 2 * len(widths) - 2 - room
    for path in [*widths][:0:-1]:
        if over > 0 and len(table[path]) > 1 and len(set(table[path])) == 1:
            over -= widths.pop(path) + 2
    while over > 0 and (left := [path for path in texts if widths.get(path, 0) > _NARROWEST]):
        widths[max(left, key=widths.__getitem__)] -= 1
        over -= 1
    return widths


def _heading(path: str) -> str:
    """The last meaningful name of a path."""
    *before, last = path.split(".")
    return (before[-1] if last in ("#", "code") else last).replace("_", " ")


def show_line(item: Any, columns: Iterable[str], out: TextIO) -> None:
    """Prints an item as one line, before there is a table."""
    text = Text("  ").join(Text(cell(pick(item, path))) for path in columns)
    open_console(out).print(text, soft_wrap=True)


def show_fields(document: dict[str, Any], out: TextIO) -> None:
    """Prints the fields of an object, one on a line or, for nested values, on several lines."""
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
