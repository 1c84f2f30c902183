"""Cursors of lists: opaque positions to continue from."""

from __future__ import annotations

import base64
import re

from service.domain.delivery.delivery_merge import Place
from service.domain.events.identifiers import EVENT_PREFIX, POSITIONS, event_position
from service.storage.redis.paging import IndexPosition
from service.storage.redis.scans import ScanCursor

LATEST = "latest"
_LOG_POSITION = re.compile(r"\d{1,16}-\d{1,16}")
_NUMBER = re.compile(r"[0-9]{1,22}")
_MAX_LENGTH = 4_000  # a position in a scan contains a course id


def _write(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read(cursor: str) -> str:
    if len(cursor) > _MAX_LENGTH:
        raise ValueError("too long")
    padded = cursor + "=" * (-len(cursor) % 4)
    return base64.b64decode(padded, altchars=b"-_", validate=True).decode()


def write_index(position: IndexPosition | None) -> str | None:
    """The cursor of a position in an index."""
    return None if position is None else _write(f"{position.created_at} {position.id}")


def read_index(cursor: str) -> IndexPosition:
    """The position in an index. Raises ValueError."""
    created_at, _, identifier = _read(cursor).partition(" ")
    if not identifier:
        raise ValueError("no place in an index")
    return IndexPosition(int(created_at), identifier)


def write_log(position: str | None) -> str | None:
    """The cursor of a position in the event log."""
    return None if position is None else write_position(position)


def write_position(position: str) -> str:
    """The cursor of a position in the event log."""
    return _write(position)


def read_start(cursor: str) -> str:
    """The position in the event log, or the word `latest` for its end. Raises ValueError."""
    return cursor if cursor == LATEST else read_log(cursor)


def read_log(cursor: str) -> str:
    """The position in the event log; an event's id is the cursor of its own position. Raises
    ValueError."""
    if cursor.startswith(EVENT_PREFIX):
        found = event_position(cursor)
        if found is None:
            raise ValueError("not an event id")
        return found[0]
    position = _read(cursor)
    if not _LOG_POSITION.fullmatch(position):
        raise ValueError("no position in the log")
    return position


def write_place(place: Place | None) -> str | None:
    """The cursor of a delivery, None at the end of the list."""
    return None if place is None else _write(f"delivery {place.number} {place.subscription_id}")


def read_place(cursor: str) -> Place:
    """The position of a delivery in the list. Raises ValueError."""
    word, number, subscription_id = _read(cursor).split(" ", 2)
    if word != "delivery" or not _NUMBER.fullmatch(number) or int(number) >= POSITIONS:
        raise ValueError("no place of a delivery")
    return Place(int(number), subscription_id)


def write_scan(scan: ScanCursor | None) -> str | None:
    """The cursor of a scan, None at its end."""
    return None if scan is None else _write(f"scan {scan.cursor} {scan.behind}")


def read_scan(cursor: str) -> ScanCursor:
    """The position of a scan. Raises ValueError."""
    word, _, rest = _read(cursor).partition(" ")
    number, _, behind = rest.partition(" ")
    if word != "scan" or not _NUMBER.fullmatch(number) or int(number) >= 2**64:
        raise ValueError("no position of a scan")
    return ScanCursor(int(number), behind)
