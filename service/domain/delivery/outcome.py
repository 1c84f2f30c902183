"""The outcome of one attempt. `retry_schedule`, `circuit_breaker` and `subscription_disabling`
decide its consequences."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class OutcomeClass(StrEnum):
    """The class of an attempt's end. Only `DELIVERED` is success; the others are failures."""

    DELIVERED = "delivered"  # a 2xx response, its body read within the limits
    STATUS = "status"  # any other response, redirects included
    TIMEOUT = "timeout"  # the whole attempt took too long
    DNS = "dns"  # the name did not resolve
    CONNECT = "connect"  # no connection
    TLS = "tls"  # the handshake or the certificate failed
    RESET = "reset"  # the connection broke before a complete response
    PROTOCOL = "protocol"  # the response was not valid HTTP
    PROXY = "proxy"  # the forward proxy was not reached, or refused the request; never counted
    REFUSED_TARGET = "refused_target"  # the address guard refused the address; nothing was sent


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt's result; a receiver's 500 is data, not an exception.

    `status` is None without a response; durations are milliseconds from the start of the attempt
    (`dns_ms`/`connect_ms`/`first_byte_ms` None if not reached; `dns_ms` None without a lookup,
    `connect_ms` 0 on a reused connection); `excerpt` is at most the first 1024 bytes of the
    response; `retry_after` is seconds; `error` describes the failure in words. `shortage` means
    that this machine ran out of a resource, such as file descriptors; the receiver did not cause
    the failure.
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
