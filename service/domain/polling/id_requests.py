"""The courses that fit into one request by ids, given commas in lists and limits of URLs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import quote

MOST_IDS: Final = 100  # ids in one request, the controls included
# Servers and proxies usually refuse a request line of more than 8 KiB. This leaves half of it to
# the base URL, the other parameters, and a proxy that rewrites them.
MAX_LIST_BYTES: Final = 4_000
MAX_ID_BYTES: Final = 800  # of one id, so that three controls and a course fit into one list
_SEPARATOR_BYTES: Final = len("%2C")
_MOST_BYTES_A_CHARACTER: Final = len("%XX") * 4  # percent-encoded UTF-8


def encoded_length(identifier: str) -> int:
    """The bytes of an id in a URL."""
    return len(quote(identifier, safe=""))


def can_be_asked(identifier: str) -> bool:
    """Whether a comma-separated list carries an id unchanged.

    A comma would split it, servers strip blanks around entries, and some drop control characters.
    """
    return (
        identifier != ""
        and "," not in identifier
        and identifier.isprintable()
        and identifier == identifier.strip()
        and (
            len(identifier) * _MOST_BYTES_A_CHARACTER <= MAX_ID_BYTES
            or encoded_length(identifier) <= MAX_ID_BYTES
        )
    )


def fitting(identifiers: Iterable[str], controls: Iterable[str] = ()) -> list[str]:
    """As many of `identifiers`, from the first, as fit into one request beside `controls`."""
    beside = list(controls)
    room = MAX_LIST_BYTES - sum(encoded_length(one) + _SEPARATOR_BYTES for one in beside)
    found: list[str] = []
    for identifier in identifiers:
        room -= encoded_length(identifier) + _SEPARATOR_BYTES
        if found and (room < 0 or len(found) + len(beside) >= MOST_IDS):
            break
        found.append(identifier)
    return found


def ends(identifiers: Sequence[bytes]) -> list[str]:
    """The first and the last of the ids that can be requested; if none can, simply the first and
    the last."""
    if not identifiers:
        return []
    first = next((one for one in map(bytes.decode, identifiers) if can_be_asked(one)), None)
    if first is None:
        return [identifiers[0].decode(), identifiers[-1].decode()]
    last = next(one for one in map(bytes.decode, reversed(identifiers)) if can_be_asked(one))
    return [first, last]
