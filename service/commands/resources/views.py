"""Prints responses that are neither a plain list nor a plain object on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TextIO

from service.commands.resources.rendering import show_fields, show_list, show_table

_BARS: Final = "▁▂▃▄▅▆▇█"
_POINTS: Final = 30  # of a sparkline


def _items(page: dict[str, Any], _columns: Sequence[str], out: TextIO) -> None:
    """Each item field by field."""
    for position, item in enumerate(page["items"]):
        out.write("\n" * bool(position))
        show_fields(item, out)
    if not page["items"]:
        out.write("There are none.\n")


def _review(page: dict[str, Any], columns: Sequence[str], out: TextIO) -> None:
    """The held changes, then the upstream state of previewed ones."""
    show_list(page, columns, out)
    for item in page["items"]:
        if item.get("upstream"):
            out.write("\n")
            show_fields({item["course_id"]: item["upstream"]}, out)


def _statistics(document: dict[str, Any], _columns: Sequence[str], out: TextIO) -> None:
    """The totals, then the slices in rows."""
    about = {name: one for name, one in document.items() if name != "slices"}
    show_fields({**about, "success_rate": _percent(about["success_rate"])}, out)
    rows = [
        {**one, "success_rate": _percent(one["delivered"] / one["attempts"])}
        for one in document["slices"]
    ]
    if rows:
        out.write("\n")
        show_table(rows, ("at", "attempts", "delivered", "success_rate", "p50_ms", "p95_ms"), out)


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.1%}"


def _history(document: dict[str, Any], _columns: Sequence[str], out: TextIO) -> None:
    """A row for each series that is not always zero; only increases have a sum."""
    show_fields({name: document[name] for name in ("resolution", "since", "until")}, out)
    rows = list(_series(document["series"]))
    out.write("\n" if rows else "Every series is zero.\n")
    if rows:
        show_table(rows, ("series", "unit", "sum", "latest", "over_time"), out)


def _series(series: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for one in series:
        values = [value for value in one["values"] if value is not None]
        if any(values):
            labels = ",".join(f"{name}={value}" for name, value in one["labels"].items())
            yield {
                "series": one["name"] + (f" {labels}" if labels else ""),
                "unit": one["unit"],
                "sum": f"{sum(values):.6g}" if one["kind"] == "counter" else None,
                "latest": f"{values[-1]:.6g}",
                "over_time": _sparkline(one["values"]),
            }


def _sparkline(values: Sequence[float | None]) -> str:
    """The greatest value of each part as blocks, a gap as a space."""
    step = -(-len(values) // _POINTS)
    parts = [values[start : start + step] for start in range(0, len(values), step)]
    points = [max((one for one in part if one is not None), default=None) for part in parts]
    top = max(one for one in points if one is not None) or 1
    return "".join(
        " " if one is None else _BARS[round(max(one, 0) / top * (len(_BARS) - 1))] for one in points
    )


VIEWS: Final[Mapping[str, Callable[[dict[str, Any], Sequence[str], TextIO], None]]] = {
    "fields": _items,
    "history": _history,
    "review": _review,
    "statistics": _statistics,
}
