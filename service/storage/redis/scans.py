"""Pages of hashes that are scanned rather than sorted, because they may be large."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

import msgspec


class ScanCursor(msgspec.Struct, frozen=True):
    """A position in a scan: its cursor, and the course after which to continue among the results of
    that cursor."""

    cursor: int
    behind: str = ""


class _Listed(Protocol):
    @property
    def id(self) -> str: ...


Row = TypeVar("Row", bound=_Listed)


def cut_page(
    rows: Iterable[Row], place: ScanCursor, cursor: int, limit: int
) -> tuple[list[Row], ScanCursor | None]:
    """At most `limit` of the rows of a scan at `place`, and the next position (None at the end).

    A scan returns more than requested; the rest comes when it is repeated.
    """
    found = sorted((row for row in rows if row.id > place.behind), key=lambda row: row.id)
    if len(found) > limit:
        return found[:limit], ScanCursor(place.cursor, found[limit - 1].id)
    return found, ScanCursor(cursor) if cursor else None
