"""The meaning of a record's `remote_deleted_at` at a given time."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum, auto
from typing import Final

SKEW_MS: Final = 5 * 60_000  # by which a past date may be ahead of our clock
MAX_UPSTREAM_LEAD_MS: Final = 3_600_000  # accepted lead of the upstream's clock over ours
EARLIEST_MS: Final = 631_152_000_000  # 1990: an earlier date is a placeholder, such as 0001 or 1970
NEVER_MS: Final = 100 * 365 * 86_400_000  # a date further in the future is a placeholder too

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DATE: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,9}))?)?"
    r" ?(?:[Zz]|UTC|GMT|([+-])([0-9]{2})(?::?([0-9]{2}))?)?)?"
)


class Deletion(Enum):
    """A record's statement about the deletion of its course.

    `NONE`: the course is not deleted; `DUE`: it will be deleted at a later time, and is live until
    then; `DONE`: it is deleted; `UNCLEAR`: the value is not a plausible date.
    """

    NONE = auto()
    DUE = auto()
    DONE = auto()
    UNCLEAR = auto()


def deletion(value: str | None, now_ms: int) -> Deletion:
    """The meaning of `remote_deleted_at` at `now_ms`, epoch ms."""
    if value is None:
        return Deletion.NONE
    at_ms = read_date(value)
    if at_ms is None or at_ms < EARLIEST_MS:
        return Deletion.UNCLEAR
    if at_ms <= now_ms + SKEW_MS:
        return Deletion.DONE
    return Deletion.DUE if at_ms <= now_ms + NEVER_MS else Deletion.NONE


def read_date(value: str) -> int | None:
    """A date as epoch ms; None if invalid. Accepted are RFC 3339 and common variants: a blank for
    the T, no seconds, a date alone, an offset without its colon or minutes. Without an offset it is
    UTC.
    """
    found = _DATE.fullmatch(value.strip())
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, sign, hours, minutes = found.groups()
    try:
        offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
        moment = datetime(
            int(year),
            int(month),
            int(day),
            int(hour or 0),
            int(minute or 0),
            59 if second == "60" else int(second or 0),  # a leap second
            int((fraction or "0").ljust(6, "0")[:6]),
            tzinfo=timezone(-offset if sign == "-" else offset),
        )
    except ValueError:
        return None
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def judging_time(ours_ms: int, upstream_ms: int | None) -> int:
    """The time that deletion dates are compared with: ours, or the upstream's if that is ahead,
    because its dates follow its clock. A lead of more than an hour is not accepted."""
    if upstream_ms is None:
        return ours_ms
    return max(ours_ms, min(upstream_ms, ours_ms + MAX_UPSTREAM_LEAD_MS))
