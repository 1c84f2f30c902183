"""What came of one attempt. What follows from it: `retry_schedule`, `circuit_breaker` and
`subscription_disabling`."""

from __future__ import annotations

from enum import StrEnum

import msgspec


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
