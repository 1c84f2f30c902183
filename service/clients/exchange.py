"""One HTTP exchange: its progress, its times, and the cause of its failure.

Exceptions of libraries are translated only here. The httpx adapter maps nearly every failure to
`ConnectTimeout`, so the aiohttp, TLS or socket error beneath it decides.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
import time
import traceback
from contextvars import ContextVar
from enum import StrEnum
from typing import TYPE_CHECKING, overload

import aiohttp
import httpx
from aiohttp.http_exceptions import HttpProcessingError

from service.clients.address_guard import RefusedAddressError
from service.domain.delivery.outcome import OutcomeClass
from service.domain.errors import CoursewireError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Resources that this machine has used up. Other socket errors are the peer's, or the network's.
_SHORTAGES = {
    errno.EMFILE: "this process has no file descriptor left",
    errno.ENFILE: "this machine has no file descriptor left",
    errno.EADDRNOTAVAIL: "this machine has no local port or address left for the connection",
    errno.EAGAIN: "this machine has no thread or port left",
    errno.ENOBUFS: "this machine has no network buffer left",
    errno.ENOMEM: "this machine has no memory left",
}
_ONE_OF_SEVERAL = re.compile(r"\[Errno (\d+)\]")


class ExchangeError(CoursewireError):
    """The response is incomplete or missing. `kind` is the stage of the failure: never `DELIVERED`,
    `STATUS` or `TIMEOUT`; a deadline is the caller's, and raises its `TimeoutError`. The message
    names no URL, because URLs may carry secrets. `shortage` means that this machine used up a
    resource.
    """

    def __init__(self, kind: OutcomeClass, message: str, *, shortage: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.shortage = shortage


class AnswerError(HttpProcessingError):
    """The peer did not send a valid HTTP response; the message describes the fault."""

    def __init__(self, words: str) -> None:
        super().__init__(message=words)


class ProxyFaultError(aiohttp.ClientError):
    """The forward proxy did not connect to the target; `translate` converts this to an
    `ExchangeError`.

    A kind of ClientError, because aiohttp and httpx pass that through.
    """

    def __init__(self, kind: OutcomeClass, explanation: str) -> None:
        super().__init__(explanation)
        self.kind = kind


class Stage(StrEnum):
    """The party that an exchange without a connection waits for."""

    TARGET = "target"
    REACHING_PROXY = "reaching_proxy"  # the connection to the proxy
    PROXY_CONNECTS = "proxy_connects"  # the proxy's connection to the target


class Timeline:
    """The times of one exchange's stages, in `time.perf_counter` seconds; None if a stage was not
    reached.

    Given to the transport as the request extension `Timeline.EXTENSION`. `reused` distinguishes a
    kept-alive connection from a new one; `resolved_at` is set if a name was looked up. `waits_for`
    names a resource that this process lacks and the exchange waits for.
    """

    EXTENSION = "coursewire.timeline"

    __slots__ = (
        *("answered_at", "connected_at", "resolved_at", "reused", "stage", "started_at"),
        "waits_for",
    )

    def __init__(self) -> None:
        self.started_at = time.perf_counter()
        self.resolved_at: float | None = None
        self.connected_at: float | None = None
        self.answered_at: float | None = None
        self.reused = True
        self.waits_for: str | None = None
        self.stage = Stage.TARGET

    @overload
    def milliseconds(self, until: float) -> int: ...
    @overload
    def milliseconds(self, until: float | None) -> int | None: ...
    def milliseconds(self, until: float | None) -> int | None:
        """Whole milliseconds from the start to `until`."""
        return None if until is None else round((until - self.started_at) * 1000)


present: ContextVar[Timeline | None] = ContextVar("timeline", default=None)  # of the exchange


# The adapter raises UnicodeDecodeError for a status line that is not UTF-8.
FOREIGN = (
    *(httpx.HTTPError, aiohttp.ClientError, HttpProcessingError),
    *(OSError, MemoryError, UnicodeDecodeError),
)

# The first class in the chain of exceptions decides; subclasses come first.
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
    OutcomeClass.RESET: "the connection broke before the response was complete",
    OutcomeClass.PROTOCOL: "the response is not valid HTTP",
    OutcomeClass.REFUSED_TARGET: "the URL has no usable address",
}
_UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21})  # OpenSSL's X509_V_ERR_*
_ALERT = re.compile(
    r"_ALERT_(CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE|BAD_CERTIFICATE|UNSUPPORTED_CERTIFICATE|"
    r"CERTIFICATE_REVOKED|CERTIFICATE_EXPIRED|CERTIFICATE_UNKNOWN|UNKNOWN_CA|ACCESS_DENIED)\Z"
)


def translate(exc: BaseException, scheme: str = "") -> ExchangeError:
    """The ExchangeError for a library's exception, whose frames it clears; `scheme` matters while
    connecting."""
    chain = list(_causes(exc))
    _clear_frames(chain)
    for cause in chain:
        if isinstance(cause, RefusedAddressError):
            return ExchangeError(OutcomeClass.REFUSED_TARGET, cause.explanation)
        if isinstance(cause, AnswerError):
            words = f"{_WORDS[OutcomeClass.PROTOCOL]}: {cause.message}"
            return ExchangeError(OutcomeClass.PROTOCOL, words)
        if isinstance(cause, ProxyFaultError):
            break  # the cause beneath it is about the proxy
        if (refusal := _certificate_refusal(cause)) is not None:
            return ExchangeError(OutcomeClass.TLS, f"{_WORDS[OutcomeClass.TLS]}: {refusal}")
    shortage = next(filter(None, map(_shortage, chain)), None)
    for cause in chain:
        if isinstance(cause, ProxyFaultError):
            return ExchangeError(cause.kind, shortage or str(cause), shortage=shortage is not None)
        for known, kind in _KINDS:
            if isinstance(cause, known):
                if shortage is not None:
                    return ExchangeError(kind, shortage, shortage=True)
                return _explain(kind, cause, scheme)
    if shortage is not None:
        return ExchangeError(OutcomeClass.CONNECT, shortage, shortage=True)
    return ExchangeError(OutcomeClass.PROTOCOL, type(exc).__name__)


def _shortage(exc: BaseException) -> str | None:
    """The resource that this machine used up, if the exception reports that.

    Different failures of a name's addresses come as one error, with the errnos in its text. A port
    may lack for only one of them, such as an IPv6 address: then the other failures decide.
    """
    if isinstance(exc, MemoryError) or (
        isinstance(exc, socket.gaierror) and exc.errno == socket.EAI_MEMORY
    ):
        return _SHORTAGES[errno.ENOMEM]
    if not isinstance(exc, OSError) or isinstance(exc, (socket.gaierror, ssl.SSLError)):
        return None
    if exc.errno is not None:
        return _SHORTAGES.get(exc.errno)
    numbers = {int(number) for number in _ONE_OF_SEVERAL.findall(str(exc))}
    numbers.discard(errno.EADDRNOTAVAIL)
    return next((_SHORTAGES[number] for number in numbers if number in _SHORTAGES), None)


def _causes(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__


def _clear_frames(chain: Iterable[BaseException]) -> None:
    """Frees what the frames of ended calls refer to.

    The frame in which a connection failed refers to the exception, and the exception to the frame:
    the request's body would stay in memory until garbage is collected.
    """
    for cause in chain:
        traceback.clear_frames(cause.__traceback__)


def _explain(kind: OutcomeClass, exc: BaseException, scheme: str) -> ExchangeError:
    """Describes the failure in words that contain neither a URL nor any sent data."""
    detail = ""
    if isinstance(exc, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorError)):
        detail = connecting_detail(exc)
        if (
            isinstance(exc, aiohttp.ClientConnectorError)
            and scheme == "https"
            and isinstance(
                exc.os_error, (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)
            )
        ):
            kind = OutcomeClass.TLS  # the connection broke in the handshake
    words = _WORDS[kind]
    return ExchangeError(kind, f"{words}: {detail}" if detail else words)


def connecting_detail(exc: BaseException) -> str:
    """Why a connection failed, in the words of the system or of OpenSSL."""
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        said: str = getattr(exc.certificate_error, "verify_message", "")
        unknown = getattr(exc.certificate_error, "verify_code", 0) in _UNKNOWN_AUTHORITY
        return f"{said}; COURSEWIRE_CA_FILE can add its authority" if unknown else said
    if isinstance(exc, aiohttp.ClientConnectorError):
        return _system_words(exc.os_error)
    return _system_words(exc) if isinstance(exc, OSError) else ""


def _certificate_refusal(exc: BaseException) -> str | None:
    """Explains a server's alert about the client certificate, or the lack of one.

    In TLS 1.3 it arrives when the handshake seems complete.
    """
    reason = getattr(exc, "reason", None) if isinstance(exc, ssl.SSLError) else None
    found = _ALERT.search(reason or "")
    if found is None:
        return None
    alert = found[1].replace("_", " ").lower()
    if alert == "certificate required":
        return "the server requires a client certificate"
    if alert == "handshake failure":
        return f"the server ended the handshake ({alert}); it may require a client certificate"
    return f"the server requires a client certificate, or refuses the one that was sent ({alert})"


def _system_words(exc: OSError) -> str:
    if isinstance(exc, ssl.SSLError):
        return (exc.reason or "").replace("_", " ").lower()
    if isinstance(exc, socket.gaierror) or exc.errno is None:
        return exc.strerror or ""
    return os.strerror(exc.errno)
