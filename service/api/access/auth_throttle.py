"""Limits wrong tokens by client address."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

from service.domain.errors import TooManyFailuresError

MAX_FAILURES = 20  # from one address within a window
WINDOW_SECONDS = 60.0  # from the first failure of an address
MAX_ADDRESSES = 10_000  # addresses counted at once; a new one replaces the one that began first
_NETWORK_BITS = 64  # of an IPv6 address: one network holds all addresses that share these


class Failures:
    """The failed attempts at this process, for a bounded number of addresses."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._logged_at: float | None = None

    def note(self, address: str) -> bool:
        """Counts a failure; returns whether to report a burst, at most once in a window.

        Raises TooManyFailuresError beyond the first `MAX_FAILURES`.
        """
        source, now = _source(address), self._clock()
        began, count = self._counts.get(source, (now, 0))
        if now - began >= WINDOW_SECONDS:
            del self._counts[source]
            began, count = now, 0
        self._counts[source] = began, count + 1
        if len(self._counts) > MAX_ADDRESSES:
            self._counts.popitem(last=False)
        if count >= MAX_FAILURES:
            raise TooManyFailuresError(max(1, round(began + WINDOW_SECONDS - now)))
        if count + 1 < MAX_FAILURES:
            return False
        if self._logged_at is not None and now - self._logged_at < WINDOW_SECONDS:
            return False
        self._logged_at = now
        return True


def _source(address: str) -> str:
    """The address, or network, that failures are counted under."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if ip.version == 6 and ip.ipv4_mapped is None:
        return str(ipaddress.ip_network((ip.packed, _NETWORK_BITS), strict=False))
    return address
