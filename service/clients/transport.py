"""The process's one HTTP client: httpx over aiohttp, guarded, with classified failures."""

from __future__ import annotations

import resource
import socket
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, cast

import aiohttp
import httpx
import httpx_aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from service.clients.address_guard import GuardedResolver, SystemResolver
from service.clients.aiohttp_private import MAX_FIELDS, MAX_HEAD_BYTES
from service.clients.exchange import FOREIGN, Timeline, present, translate
from service.clients.posting import Poster
from service.clients.proxying import EgressProxy, ProxyingConnector
from service.clients.tls import ClientContexts, make_context

if TYPE_CHECKING:
    from pathlib import Path

    from aiohttp.client_middlewares import ClientHandlerType

    from service.clients.address_guard import AddressGuard
    from service.domain.egress.routes import Routes

try:
    USER_AGENT = f"Coursewire/{version('coursewire')}"
except PackageNotFoundError:  # run from a source tree
    USER_AGENT = "Coursewire"

# Connections of one process: half of the files it may open, within these bounds. One host that
# never answers cannot occupy all of them, because one subscription may have up to a hundred.
MIN_CONNECTIONS = 256
MAX_CONNECTIONS = 8192
MAX_CONNECTIONS_PER_HOST = 128
# Seconds an idle connection is kept. Node.js and uvicorn close theirs after 5 s. A POST on a
# closing connection is lost and not repeated automatically, because it is not idempotent.
KEEPALIVE_SECONDS = 4.0
DNS_CACHE_SECONDS = 10

_target: ContextVar[str] = ContextVar("target")  # of the request: its path and query


class OutboundClient(httpx.AsyncClient):
    """The shared client; `poster` sends many POSTs over the same connections.

    Most of the time of a small POST goes to the work of a client around it: objects for the request
    and its response, cookies, redirects, authentication, a log line with the URL.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        poster: Poster,
        check_proxy: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(
            transport=transport,
            trust_env=False,
            follow_redirects=False,
            timeout=None,
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        )
        self.poster = poster
        self.check_proxy = check_proxy

    def _build_redirect_request(self, request: httpx.Request, _: httpx.Response) -> httpx.Request:
        """Redirects are not followed. httpx would raise here if `Location` is not a URL."""
        return request


def open_client(
    guard: AddressGuard,
    *,
    max_connections: int | None = None,
    max_connections_per_host: int = MAX_CONNECTIONS_PER_HOST,
    lookup: AbstractResolver | None = None,
    tls: ssl.SSLContext | None = None,
    routes: Routes | None = None,
    ca_file: Path | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> OutboundClient:
    """A client whose connections all pass `guard`; close it with `aclose` or `async with`.

    It needs a running event loop, and belongs to it. It follows no redirects, stores no cookies,
    uses only the proxy of `routes`, whatever the environment sets, and has no timeouts of its own.
    Without `tls`, certificates are verified against the public authorities and those in `ca_file`.
    `lookup` replaces the system's name resolution, and `clock` measures a connection's age in
    seconds. Requests raise `ExchangeError`.
    """
    if tls is None:
        tls = make_context(ca_file)

    def open_socket(target: aiohttp.AddrInfoType) -> socket.socket:
        if (timeline := present.get()) is not None:
            timeline.reused = False
        return guard.open_socket(target)

    lookup = lookup or SystemResolver()
    resolver = _TimedResolver(GuardedResolver(guard, lookup))
    egress = None
    if routes is not None and routes.proxy is not None:
        egress = EgressProxy(
            routes, routes.proxy, guard, _TimedResolver(lookup), make_context(ca_file)
        )
    connector = ProxyingConnector(
        egress=egress,
        limit=_connection_limit() if max_connections is None else max_connections,
        limit_per_host=max_connections_per_host,
        keepalive_timeout=KEEPALIVE_SECONDS,
        resolver=resolver,
        ttl_dns_cache=DNS_CACHE_SECONDS,
        socket_factory=open_socket,
        ssl=tls,
        clock=clock,
    )
    session = aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": USER_AGENT},
        skip_auto_headers=("Accept-Encoding",),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        trust_env=False,
        middlewares=(_as_written,),
        max_line_size=MAX_HEAD_BYTES,
        max_field_size=MAX_HEAD_BYTES,
        max_headers=MAX_FIELDS,
    )
    return OutboundClient(
        _OutboundTransport(session, tls, resolver),
        Poster(connector, USER_AGENT, ClientContexts(ca_file)),
        connector.check_proxy,
    )


def _connection_limit() -> int:
    """The number of connections that the limit of open files allows."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(MIN_CONNECTIONS, min(files // 2, MAX_CONNECTIONS))


async def _as_written(
    request: aiohttp.ClientRequest, send: ClientHandlerType
) -> aiohttp.ClientResponse:
    """Sends path and query as httpx has them; aiohttp would encode them differently."""
    request.url = URL(f"{request.url.origin()}{_target.get()}", encoded=True)
    return await send(request)


class _TimedResolver(AbstractResolver):
    """Records in the exchange's timeline when the name was looked up."""

    def __init__(self, resolver: AbstractResolver) -> None:
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        if (timeline := present.get()) is not None:
            timeline.resolved_at = time.perf_counter()
        return found

    async def close(self) -> None:
        await self._resolver.close()


class _OutboundTransport(httpx_aiohttp.AiohttpTransport):
    """The adapter with translated exceptions; closing it closes everything beneath it."""

    def __init__(
        self, session: aiohttp.ClientSession, tls: ssl.SSLContext, resolver: AbstractResolver
    ) -> None:
        super().__init__(client=session, verify=tls)
        self._resolver = resolver

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        timeline: Timeline | None = request.extensions.get(Timeline.EXTENSION)
        token = present.set(timeline)
        _target.set(request.url.raw_path.decode("ascii"))
        try:
            response = await super().handle_async_request(request)
        except FOREIGN as exc:
            raise translate(exc, request.url.scheme) from exc
        finally:
            present.reset(token)
        if timeline is not None:
            timeline.answered_at = time.perf_counter()
        response.stream = _AnswerStream(cast("httpx.AsyncByteStream", response.stream))
        return response

    async def aclose(self) -> None:
        await super().aclose()
        await self._resolver.close()


class _AnswerStream(httpx.AsyncByteStream):
    """A response's body with translated exceptions; read at most once, up to any point."""

    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream
        self._chunks = aiter(stream)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._chunks)
        except FOREIGN as exc:
            raise translate(exc) from exc

    async def aclose(self) -> None:
        try:
            if isinstance(self._chunks, AsyncGenerator):
                await self._chunks.aclose()
            await self._stream.aclose()
        except FOREIGN as exc:
            raise translate(exc) from exc
