"""The process's one HTTP client: httpx over aiohttp, guarded, its failures told apart.

Foreign exceptions are translated here and nowhere else. The httpx adapter maps nearly every
failure to `ConnectTimeout`, so what counts is the aiohttp, TLS or socket error beneath it.
"""

from __future__ import annotations

import os
import resource
import socket
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextvars import ContextVar
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, cast, overload

import aiohttp
import httpx
import httpx_aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.http_exceptions import HttpProcessingError

from service.clients.egress import GuardedResolver, RefusedAddressError
from service.domain.errors import CoursewireError
from service.domain.retry import OutcomeClass

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

    from service.clients.egress import AddressGuard

try:
    USER_AGENT = f"Coursewire/{version('coursewire')}"
except PackageNotFoundError:  # run from a source tree
    USER_AGENT = "Coursewire"

# Connections of one process: half of the files it may open, within these bounds. One host that
# never answers cannot hold them all, and one subscription may ask for a hundred.
MIN_CONNECTIONS = 512
MAX_CONNECTIONS = 8192
MAX_CONNECTIONS_PER_HOST = 128
# Seconds an idle connection is kept. Node.js and uvicorn close theirs after 5 s, and a POST sent
# into a closing connection is lost: it is not idempotent, so it is not repeated by itself.
KEEPALIVE_SECONDS = 4.0
DNS_CACHE_SECONDS = 10
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


_timeline: ContextVar[Timeline | None] = ContextVar("timeline", default=None)


class OutboundClient(httpx.AsyncClient):
    """The shared client; `direct` is its transport, for requests by the thousand.

    Both use one pool of connections. The client's own work on a request (cookies, redirects,
    authentication, a log line with the URL) takes half of the time of a small POST.
    """

    def __init__(self, direct: httpx.AsyncBaseTransport) -> None:
        super().__init__(
            transport=direct,
            trust_env=False,
            follow_redirects=False,
            timeout=None,
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        )
        self.direct = direct


def open_client(
    guard: AddressGuard,
    *,
    max_connections: int | None = None,
    max_connections_per_host: int = MAX_CONNECTIONS_PER_HOST,
    lookup: AbstractResolver | None = None,
    tls: ssl.SSLContext | None = None,
) -> OutboundClient:
    """A client whose every connection passes `guard`; close it with `aclose` or `async with`.

    Needs a running event loop, and belongs to it. It follows no redirects, keeps no cookies,
    uses no proxy, and sets no time limits of its own. Without `tls`, certificates are verified
    against certifi's list, or what `SSL_CERT_FILE` or `SSL_CERT_DIR` name. `lookup` replaces
    the system's name resolution. Requests raise `ExchangeError`.
    """
    if tls is None:
        tls = httpx.create_ssl_context()
        tls.set_alpn_protocols(["http/1.1"])

    def open_socket(target: aiohttp.AddrInfoType) -> socket.socket:
        if (timeline := _timeline.get()) is not None:
            timeline.reused = False
        return guard.open_socket(target)

    resolver = _TimedResolver(GuardedResolver(guard, lookup))
    session = aiohttp.ClientSession(
        connector=_TimedConnector(
            limit=_connection_limit() if max_connections is None else max_connections,
            limit_per_host=max_connections_per_host,
            keepalive_timeout=KEEPALIVE_SECONDS,
            resolver=resolver,
            ttl_dns_cache=DNS_CACHE_SECONDS,
            socket_factory=open_socket,
            ssl=tls,
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": USER_AGENT},
        skip_auto_headers=("Accept-Encoding",),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        trust_env=False,
    )
    return OutboundClient(_OutboundTransport(session, tls, resolver))


def _connection_limit() -> int:
    """As many connections as the limit of open files leaves room for."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(MIN_CONNECTIONS, min(files // 2, MAX_CONNECTIONS))


class _TimedResolver(AbstractResolver):
    """Notes in the exchange's timeline when the name was looked up."""

    def __init__(self, resolver: AbstractResolver) -> None:
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        if (timeline := _timeline.get()) is not None:
            timeline.resolved_at = time.perf_counter()
        return found

    async def close(self) -> None:
        await self._resolver.close()


class _TimedConnector(aiohttp.TCPConnector):
    """Notes in the exchange's timeline when it had its connection.

    aiohttp's own tracing would tell as well, but costs every request several times as much.
    """

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the overridden method's parameter
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        if (timeline := _timeline.get()) is not None:
            timeline.connected_at = time.perf_counter()
        return connection


class _OutboundTransport(httpx_aiohttp.AiohttpTransport):
    """The adapter with its exceptions translated; closing it closes all that is beneath it."""

    def __init__(
        self, session: aiohttp.ClientSession, tls: ssl.SSLContext, resolver: AbstractResolver
    ) -> None:
        super().__init__(client=session, verify=tls)
        self._resolver = resolver

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        timeline: Timeline | None = request.extensions.get(Timeline.EXTENSION)
        token = _timeline.set(timeline)
        try:
            response = await super().handle_async_request(request)
        except _FOREIGN as exc:
            raise _translate(exc, request.url.scheme) from exc
        finally:
            _timeline.reset(token)
        if timeline is not None:
            timeline.answered_at = time.perf_counter()
        response.stream = _AnswerStream(cast("httpx.AsyncByteStream", response.stream))
        return response

    async def aclose(self) -> None:
        await super().aclose()
        await self._resolver.close()


class _AnswerStream(httpx.AsyncByteStream):
    """An answer's body with its exceptions translated; read at most once, to any point."""

    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream
        self._chunks = aiter(stream)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._chunks)
        except _FOREIGN as exc:
            raise _translate(exc) from exc

    async def aclose(self) -> None:
        try:
            if isinstance(self._chunks, AsyncGenerator):
                await self._chunks.aclose()
            await self._stream.aclose()
        except _FOREIGN as exc:
            raise _translate(exc) from exc


_FOREIGN = (httpx.HTTPError, aiohttp.ClientError, HttpProcessingError, OSError)

# The first class that an exception in the chain belongs to decides; subclasses come first.
_KINDS: tuple[tuple[type[BaseException], OutcomeClass], ...] = (
    (aiohttp.ClientSSLError, OutcomeClass.TLS),
    (aiohttp.ClientConnectorDNSError, OutcomeClass.DNS),
    (aiohttp.ClientConnectorError, OutcomeClass.CONNECT),
    (aiohttp.InvalidURL, OutcomeClass.REFUSED_TARGET),
    (aiohttp.NonHttpUrlClientError, OutcomeClass.REFUSED_TARGET),
    (aiohttp.ClientResponseError, OutcomeClass.PROTOCOL),
    (HttpProcessingError, OutcomeClass.PROTOCOL),
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


def _translate(exc: BaseException, scheme: str = "") -> ExchangeError:
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
