"""What an attempt's outcome means for its delivery: delivered, again later, or dead."""

from __future__ import annotations

from enum import StrEnum

import msgspec

# Seconds from each failure to the next attempt; 75 h in all.
DEFAULT_SCHEDULE: tuple[int, ...] = (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
JITTER = 0.2  # of each delay, either way
RETRY_AFTER_MAX = 86_400.0  # seconds of a receiver's Retry-After that are honoured


class OutcomeClass(StrEnum):
    """How one attempt ended. Exactly `DELIVERED` is success; the rest are failures."""

    DELIVERED = "delivered"  # a 2xx answer, its body read within the limits
    STATUS = "status"  # any other answer, redirects included
    TIMEOUT = "timeout"  # the whole attempt took too long
    DNS = "dns"  # the name did not resolve
    CONNECT = "connect"  # no connection
    TLS = "tls"  # the handshake or the certificate failed
    RESET = "reset"  # the connection broke before a complete answer
    PROTOCOL = "protocol"  # the answer was not valid HTTP
    PROXY = "proxy"  # our own forward proxy was not reached, or refuses us; never counted
    REFUSED_TARGET = "refused_target"  # the address guard refused it; nothing was sent


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt's result; a receiver's 500 is data, not an exception.

    `status` is None unless an answer came; durations are milliseconds from the start of the
    attempt (`dns_ms`/`connect_ms`/`first_byte_ms` None if not reached; `dns_ms` None as well
    where nothing had to be looked up, `connect_ms` 0 when the connection was reused); `excerpt`
    is at most the first 1024 bytes of the answer; `retry_after` is seconds; `error` describes
    in words what went wrong. `shortage` means that it failed because this machine ran out of
    something, such as file descriptors; the receiver has no part in that.
    """

    kind: OutcomeClass
    duration_ms: int
    status: int | None = None
    dns_ms: int | None = None
    connect_ms: int | None = None
    first_byte_ms: int | None = None
    retry_after: float | None = None
    excerpt: bytes = b""
    error: str | None = None
    shortage: bool = False

    @property
    def delivered(self) -> bool:
        """Whether the receiver took responsibility for the event."""
        return self.kind is OutcomeClass.DELIVERED


def may_go_early(attempts: int, schedule: tuple[int, ...]) -> bool:
    """Whether a delivery with `attempts` failures may be tried before its time, as a probe.

    Not with its last attempt: nothing dies sooner because its outbox is parked.
    """
    return attempts < len(schedule)


def next_delay(
    outcome: Outcome,
    attempts: int,
    schedule: tuple[int, ...],
    unit_random: float,
    early: float = 0.0,
) -> float | None:
    """Seconds until the next attempt after `attempts` failures in all, or None when dead.

    `unit_random` in [0, 1) spreads the delay by ±20 %. A `Retry-After` longer than the
    schedule's delay wins, up to 24 hours. `early` is how many seconds before its time the
    attempt was made, as a probe: the one after it keeps the time it would have had.
    """
    if attempts > len(schedule):
        return None
    delay = schedule[attempts - 1] * (1 + JITTER * (2 * unit_random - 1)) + early
    if outcome.retry_after is not None:
        delay = max(delay, min(outcome.retry_after, RETRY_AFTER_MAX))
    return delay
