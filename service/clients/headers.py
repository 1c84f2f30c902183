"""Times in the header fields of a response."""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import parsedate_to_datetime

_SECONDS = re.compile(r"[0-9]{1,10}(?:\.[0-9]{1,10})?")


def http_date(value: str | None) -> float | None:
    """An HTTP date as epoch seconds, None if invalid."""
    if not value:
        return None
    try:
        parsed = parsedate_to_datetime(value)
        if parsed.tzinfo is None:  # "-0000" is read as no zone; HTTP dates are UTC
            parsed = parsed.replace(tzinfo=UTC)
        return parsed.timestamp()
    except (ValueError, OverflowError):
        return None


def seconds(value: str | None) -> float | None:
    """A plain, non-negative number of seconds, None if invalid."""
    text = (value or "").strip()
    return float(text) if _SECONDS.fullmatch(text) else None


def retry_after(value: str | None, *now: float) -> float | None:
    """Seconds that a `Retry-After` asks to wait from `now` (epoch seconds), or None.

    The value is a number of seconds or a date. For a date, the shortest wait above 0 applies,
    because one of the clocks that gave `now` may be wrong by years. A date that is in the past by
    all clocks means 0.
    """
    if not value:
        return None
    if (delay := seconds(value)) is not None:
        return delay
    if (moment := http_date(value)) is not None:
        return min((moment - one for one in now if moment > one), default=0.0)
    return None
