"""Signals that stop a process: it distinguishes a second request from a repeated first one."""

from __future__ import annotations

import time
from typing import Final

SAME_REQUEST_SECONDS: Final = 1.0


class StopSignals:
    """The signals that one process has received.

    One request to stop may reach a process several times: systemd and terminals signal a whole
    group, and make or a supervisor in that group pass the signal on. Signals within a second of
    the first one are therefore the same request.
    """

    def __init__(self) -> None:
        self._first: float | None = None

    def again(self) -> bool:
        """Note a signal; return whether it is a second request."""
        now = time.monotonic()
        if self._first is None:
            self._first = now
            return False
        return now - self._first >= SAME_REQUEST_SECONDS
