"""Starts a part of the service with a clock that is off: `python -m tests.chaos.skewed -90 worker`.

The clock that everything asks for the time of day is replaced before anything else is imported.
"""

from __future__ import annotations

import sys
import time

OFFSET = float(sys.argv[1])
_time, _time_ns = time.time, time.time_ns
_OFFSET_NS = int(OFFSET * 1_000_000_000)
time.time = lambda: _time() + OFFSET
time.time_ns = lambda: _time_ns() + _OFFSET_NS

from service.cli import main  # noqa: E402 - after the clock

if __name__ == "__main__":
    sys.argv = ["coursewire", *sys.argv[2:]]
    main()
