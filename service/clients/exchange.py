"""One HTTP exchange: how far it got and when, and why it failed if it did.

Foreign exceptions are translated here and nowhere else. The httpx adapter maps nearly every
failure to `ConnectTimeout`, so what counts is the aiohttp, TLS or socket error beneath it.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, overload

import aiohttp
import httpx
from aiohttp.http_exceptions import HttpProcessingError

from service.clients.egress import RefusedAddressError
from service.domain.errors import CoursewireError
from service.domain.retry import OutcomeClass

if TYPE_CHECKING:
    from collections.abc import Iterator

DETAIL_LENGTH = 200  # characters quoted of what a parser complained about


class ExchangeError(CoursewireError):
    """No complete answer came.

    `kind` says at which stage it failed: never `DELIVERED`, `STATUS` or `TIMEOUT`; a deadline
    is the caller's, and shows as its `TimeoutError`. The message names no URL, because URLs
    may carry secrets.
    """

    def __init__(self, kind: OutcomeClass, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Timeline:
    """When one exchange got how far, in `time.perf_counter` seconds; None if it did not.

    Given to the transport as the request extension `Timeline.EXTENSION`. `reused` tells a
    kept-alive connection from a new one; `resolved_at` is there if a name was looked up for it.
    """

    EXTENSION = "coursewire.timeline"

    __slots__ = ("answered_at", "connected_at", "resolved_at", "reused", "started_at")

    def __init__(self) -> None:
        self.started_at = time.perf_counter()
        self.resolved_at: float | None = None
        self.connected_at: float | None = None
        self.answered_at: float | None = None
        self.reused = True

    @overload
    def milliseconds(self, until: float) -> int: ...
    @overload
    def milliseconds(self, until: float | None) -> int | None: ...
    def milliseconds(self, until: float | None) -> int | None:
        """Whole milliseconds from the start to `until`."""
        return None if until is None else round((until - self.started_at) * 1000)


present: ContextVar[Timeline | None] = ContextVar("timeline", default=None)  # of the exchange


# A status line that is not UTF-8 makes the adapter fail.
FOREIGN = (httpx.HTTPError, aiohttp.ClientError, HttpProcessingError, OSError, UnicodeError)

# The first class that an exception in the chain belongs to decides; subclasses come first.
_KINDS: tuple[tuple[type[BaseException], OutcomeClass], ...] = (
    (aiohttp.ClientSSLError, OutcomeClass.TLS),
    (aiohttp.ClientConnectorDNSError, OutcomeClass.DNS),
    (aiohttp.ClientConnectorError, OutcomeClass.CONNECT),
    (aiohttp.InvalidURL, OutcomeClass.REFUSED_TARGET),
    (aiohttp.NonHttpUrlClientError, OutcomeClass.REFUSED_TARGET),
    (aiohttp.ClientResponseError, OutcomeClass.PROTOCOL),
    (HttpProcessingError, OutcomeClass.PROTOCOL),
    (UnicodeError, OutcomeClass.PROTOCOL),
    (ssl.SSLError, OutcomeClass.TLS),
    (aiohttp.ClientError, OutcomeClass.RESET),
    (OSError, OutcomeClass.RESET),
)
_WORDS = {
    OutcomeClass.DNS: "the host name did not resolve",
    OutcomeClass.CONNECT: "no connection",
    OutcomeClass.TLS: "no secure connection",
    OutcomeClass.RESET: "the connection broke before the answer was complete",
    OutcomeClass.PROTOCOL: "the answer is not valid HTTP",
    OutcomeClass.REFUSED_TARGET: "the URL names no usable address",
}


def translate(exc: BaseException, scheme: str = "") -> ExchangeError:
    """What an exception of the libraries means; `scheme` matters while connecting."""
    chain = list(_causes(exc))
    for cause in chain:
        if isinstance(cause, RefusedAddressError):
            return ExchangeError(OutcomeClass.REFUSED_TARGET, cause.explanation)
    for cause in chain:
        for known, kind in _KINDS:
            if isinstance(cause, known):
                return _explain(kind, cause, scheme)
    return ExchangeError(OutcomeClass.PROTOCOL, type(exc).__name__)


def _causes(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__


def _explain(kind: OutcomeClass, exc: BaseException, scheme: str) -> ExchangeError:
    """Put the failure into words that name neither a URL nor anything that was sent."""
    detail = ""
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        detail = getattr(exc.certificate_error, "verify_message", "")
    elif isinstance(exc, aiohttp.ClientConnectorError):
        detail = _system_words(exc.os_error)
        if scheme == "https" and isinstance(
            exc.os_error, (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)
        ):
            kind = OutcomeClass.TLS  # there was a connection, and it broke in the handshake
    elif isinstance(exc, (aiohttp.ClientResponseError, HttpProcessingError)):
        detail = " ".join(exc.message.split())[:DETAIL_LENGTH]
    words = _WORDS[kind]
    return ExchangeError(kind, f"{words}: {detail}" if detail else words)


def _system_words(exc: OSError) -> str:
    if isinstance(exc, ssl.SSLError):
        return (exc.reason or "").replace("_", " ").lower()
    if isinstance(exc, socket.gaierror) or exc.errno is None:
        return exc.strerror or ""
    return os.strerror(exc.errno)
