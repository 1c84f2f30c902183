"""Identifiers: their form, and the position in the log that an event's id contains.

An event id is `evt_` and 26 characters of Crockford's base 32: 10 for the milliseconds and 4 for
the counter of its position in the log, then 12 random ones (60 bits). It leads to the event in one
step and is never assigned twice, even if a restored database repeats a position.

The first 14 characters, the sort key of the position, are in the order of positions.

An event that a backfill created for one outbox is not in the log. It nevertheless has a position,
with a counter from 2^19 on, which the log does not reach within a millisecond.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_CHARACTERS = "".join(ALPHABET[byte & 31] for byte in range(256)).encode()  # of each byte
_DIGITS = str.maketrans(ALPHABET, "0123456789abcdefghijklmnopqrstuv")  # as `int` reads them
_VALUE = {character: value for value, character in enumerate(ALPHABET)}
EVENT_PREFIX = "evt_"
SUFFIX_LENGTH = 12
SORT_KEY_LENGTH = 14
COUNTER_BITS = 20
LAST_COUNTER = (1 << COUNTER_BITS) - 1  # greatest counter of a position
POSITIONS = 1 << 70  # number of counters: 5 bits for each character of a sort key
BACKFILLED = 1 << 19  # lowest counter of a backfilled event's position


@lru_cache(maxsize=4096)  # events committed together share their time, and count from 0
def encode(number: int, length: int) -> str:
    """`number` (≥ 0) in base 32, most significant character first, `length` characters."""
    characters = []
    for _ in range(length):
        number, rest = divmod(number, 32)
        characters.append(ALPHABET[rest])
    return "".join(reversed(characters))


def decode(text: str) -> int:
    """The number that `text` writes in base 32. Raises KeyError on a foreign character."""
    number = 0
    for character in text:
        number = number * 32 + _VALUE[character]
    return number


def encode_random(source: bytes, length: int) -> str:
    """`length` characters drawn from the random bytes of `source`, one byte each."""
    return source[:length].translate(_CHARACTERS).decode()


def event_id(position: str, suffix: str) -> str:
    """The id of the event at `position` ("ms-n") whose random part is `suffix`."""
    return f"{EVENT_PREFIX}{sort_key(position)}{suffix}"


def event_position(identifier: str) -> tuple[str, str] | None:
    """The position and the random part that an event id names, or None if it is not one."""
    body = identifier.removeprefix(EVENT_PREFIX)
    if body == identifier or len(body) != SORT_KEY_LENGTH + SUFFIX_LENGTH:
        return None
    try:
        return position_of(decode(body[:SORT_KEY_LENGTH])), body[SORT_KEY_LENGTH:]
    except KeyError:
        return None


@lru_cache(maxsize=4096)  # many subscriptions receive the same events
def sort_key(position: str) -> str:
    """The text that sorts positions in sorted sets."""
    milliseconds, counter = position_order(position)
    return encode(milliseconds, 10) + encode(counter, 4)


@lru_cache(maxsize=4096)
def sort_key_number(key: str) -> int:
    """The number of the position with this sort key."""
    return int(key.translate(_DIGITS), 32)


def position_number(position: str) -> int:
    """A position as one number, in the order of positions."""
    milliseconds, counter = position_order(position)
    return milliseconds << COUNTER_BITS | counter


def first_number(milliseconds: int) -> int:
    """The number of the first position at a time."""
    return milliseconds << COUNTER_BITS


def number_before(milliseconds: int) -> int:
    """The number of the last position before a time (epoch ms). For 1970 and earlier, it is the
    number of the first position, which no event has."""
    return max(first_number(milliseconds) - 1, 0)


def position_before(milliseconds: int) -> str:
    """The last position before a time."""
    return position_of(number_before(milliseconds))


def position_of(number: int) -> str:
    """The position with this number."""
    return f"{number >> COUNTER_BITS}-{number & LAST_COUNTER}"


def runs_of(positions: Iterable[str]) -> list[tuple[str, str]]:
    """The first and the last position of each run of adjacent ones, in the order given. The events
    of one commit are adjacent."""
    runs: list[tuple[str, str]] = []
    first = last = expected = ""
    for position in positions:
        if position != expected:
            if first:
                runs.append((first, last))
            first = position
        last = position
        milliseconds, _, counter = position.partition("-")
        expected = f"{milliseconds}-{int(counter) + 1}"
    return [*runs, (first, last)] if first else runs


def position_ms(position: str) -> int:
    """Epoch ms of a position in the log."""
    return int(position.partition("-")[0])


def position_order(position: str) -> tuple[int, int]:
    """The sort key that compares positions in the log."""
    milliseconds, _, counter = position.partition("-")
    return int(milliseconds), int(counter)


def is_backfilled(position: str) -> bool:
    """Whether it is the position of a backfilled event, which is not in the log."""
    return int(position.rpartition("-")[2]) >= BACKFILLED


def backfilled_place(position: str) -> str:
    """The entry of a backfilled event in its outbox's stream."""
    milliseconds, counter = position_order(position)
    return f"{milliseconds}-{counter - BACKFILLED}"
