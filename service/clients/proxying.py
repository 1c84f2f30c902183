"""Connections through the forward proxy: checked here as far as possible, tunnelled for https."""

from __future__ import annotations

import asyncio
import base64
import re
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

import aiohttp
from aiohttp import hdrs
from aiohttp.client_reqrep import ClientRequest
from yarl import URL

from service.clients.address_guard import RefusedAddressError, VouchedAddress
from service.clients.aiohttp_private import CheckedConnector
from service.clients.exchange import (
    FOREIGN,
    ProxyFaultError,
    Stage,
    connecting_detail,
    present,
    translate,
)
from service.domain.delivery.outcome import OutcomeClass
from service.domain.egress.routes import BYPASS_SETTING, PROXY_SETTING
from service.domain.errors import TargetRefusedError

if TYPE_CHECKING:
    import ssl

    from aiohttp.abc import AbstractResolver, ResolveResult
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

    from service.clients.address_guard import AddressGuard
    from service.domain.egress.routes import Proxy, Routes

REACH_SECONDS: Final = 10.0  # for a connection to the proxy, its TLS included
LOOK_UP_SECONDS: Final = 3.0  # for the target's name; many networks cannot resolve public names
VERDICT_SECONDS: Final = 10.0  # for which a resolved name is cached
MAX_VERDICTS: Final = 4096
MAX_HEAD_BYTES: Final = 64 * 1024  # of the proxy's response to CONNECT
NAMELESS: Final = "coursewire-check.invalid"  # a name that never resolves: RFC 2606

_NO_LIMITS: Final = aiohttp.ClientTimeout(total=None)
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[0-9] ([1-5][0-9][0-9])(?: [^\r\n]*)?\r?\n")
_END_OF_HEAD: Final = re.compile(rb"\r?\n\r?\n")
_PROXY_AUTHENTICATION_REQUIRED: Final = 407
_THE_PROXY: Final = f"the proxy of {PROXY_SETTING}"


class EgressProxy:
    """Decides which requests go through the proxy, and opens their connections. `lookup` resolves
    names without the guard. `tls` verifies the proxy itself; it presents no client certificate.
    """

    def __init__(
        self,
        routes: Routes,
        proxy: Proxy,
        guard: AddressGuard,
        lookup: AbstractResolver,
        tls: ssl.SSLContext,
    ) -> None:
        self._routes = routes
        self._proxy = proxy
        self._guard = guard
        self._lookup = lookup
        self._tls = tls if proxy.scheme == "https" else None
        self._url = URL.build(scheme=proxy.scheme, host=proxy.host, port=proxy.port)
        # Not in the keys of connections, which warnings contain: each connector has one proxy.
        self._login = None if proxy.user is None else _basic(proxy.user, proxy.password)
        self._verdicts: dict[str, tuple[float, str | None]] = {}

    def route(self, request: ClientRequest) -> None:
        """Sends the request through the proxy, unless its target is reached directly."""
        url = request.url
        if self._routes.proxy_for(url.raw_host or "", url.port or 0) is None:
            return
        request.update_proxy(self._url, None, None)
        if not request.is_ssl():
            if self._login is not None:
                request.headers[hdrs.PROXY_AUTHORIZATION] = self._login
        elif (url.raw_host or "").endswith("."):
            # certificates have no final dot
            request.server_hostname = (url.raw_host or "").rstrip(".")

    async def connect(
        self,
        connector: aiohttp.TCPConnector,
        request: ClientRequest,
        factory: Callable[[], ResponseHandler],
    ) -> ResponseHandler:
        """A connection for the request's target: to the proxy itself for http, a tunnel with TLS to
        the target inside for https. Raises RefusedAddressError, ProxyFaultError, or aiohttp's error
        if the target's TLS fails."""
        await self._judge(request.url)
        if not request.is_ssl():
            _, protocol = await self._reach(connector, request, factory)
            return cast("ResponseHandler", protocol)
        transport = await self._tunnel(connector, request, _authority(request.url))
        _, protocol = await connector._start_tls_connection(  # noqa: SLF001 - aiohttp has no public way
            transport, req=request, timeout=_NO_LIMITS
        )
        return protocol

    async def check(self, connector: aiohttp.TCPConnector) -> None:
        """Raises ProxyFaultError unless the proxy can be reached and accepts the credentials. The
        requested target does not exist, so the proxy's answer about it is ignored."""
        url = URL.build(scheme="https", host=NAMELESS, port=443)
        request = ClientRequest("GET", url, loop=asyncio.get_running_loop())
        try:
            async with asyncio.timeout(REACH_SECONDS * 2):
                transport = await self._tunnel(connector, request, _authority(url))
        except TimeoutError:
            raise ProxyFaultError(
                OutcomeClass.PROXY, f"{_THE_PROXY} accepts connections and does not answer"
            ) from None
        except ProxyFaultError as fault:
            if fault.kind is not OutcomeClass.PROXY:
                return
            raise
        transport.abort()

    # --- the target ----------------------------------------------------------------------------

    async def _judge(self, url: URL) -> None:
        """Raise RefusedAddressError for a target that would be refused without a proxy, as far as
        it can be resolved: the proxy decides about other names."""
        host = (url.raw_host or "").lower().removesuffix(".")
        if self._guard.allows_name(host):
            return
        now = time.monotonic()
        known = self._verdicts.get(host)
        if known is None or known[0] < now:
            if len(self._verdicts) >= MAX_VERDICTS:
                self._verdicts.clear()
            known = self._verdicts[host] = (now + VERDICT_SECONDS, await self._verdict(url, host))
        if known[1] is not None:
            raise RefusedAddressError(known[1])

    async def _verdict(self, url: URL, host: str) -> str | None:
        try:
            self._guard.check_url(str(url.origin()))
        except TargetRefusedError as refusal:
            return str(refusal)
        if not _is_name(host):
            return None
        try:
            async with asyncio.timeout(LOOK_UP_SECONDS):
                found = await self._lookup.resolve(host, url.port or 0, socket.AF_UNSPEC)
        except (OSError, TimeoutError):
            return None
        try:
            for one in found:  # the proxy may choose any of them
                self._guard.require(one["host"], host)
        except RefusedAddressError as refusal:
            return refusal.explanation
        return None

    # --- the proxy -----------------------------------------------------------------------------

    async def _reach(
        self,
        connector: aiohttp.TCPConnector,
        request: ClientRequest,
        factory: Callable[[], asyncio.BaseProtocol],
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        timeline = present.get()
        if timeline is not None:
            timeline.stage = Stage.REACHING_PROXY
        try:
            async with asyncio.timeout(REACH_SECONDS):
                reached = await self._connect(connector, request, factory)
        except TimeoutError as exc:
            raise ProxyFaultError(
                OutcomeClass.PROXY, f"{_THE_PROXY} cannot be reached: no connection in time"
            ) from exc
        except (aiohttp.ClientConnectorError, OSError) as exc:
            raise ProxyFaultError(OutcomeClass.PROXY, _unreachable(exc)) from exc
        if timeline is not None:
            timeline.stage = Stage.TARGET
        return reached

    async def _connect(
        self,
        connector: aiohttp.TCPConnector,
        request: ClientRequest,
        factory: Callable[[], asyncio.BaseProtocol],
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        host, port = self._proxy.host, self._proxy.port
        found: list[ResolveResult] = [
            {"hostname": host, "host": host, "port": port, "family": 0, "proto": 0, "flags": 0}
        ]
        if _is_name(host):
            found = await self._lookup.resolve(host, port, socket.AF_UNSPEC)
        for one in found:  # because the operator names the proxy, its address is allowed, here only
            one["host"] = VouchedAddress(one["host"])
        tls: dict[str, Any] = {}
        if self._tls is not None:
            tls = {"ssl": self._tls, "server_hostname": host}
        return await connector._wrap_create_connection(  # noqa: SLF001 - aiohttp has no public way
            factory,
            addr_infos=connector._convert_hosts_to_addr_infos(found),  # noqa: SLF001 - the same
            req=request,
            timeout=_NO_LIMITS,
            **tls,
        )

    async def _tunnel(
        self, connector: aiohttp.TCPConnector, request: ClientRequest, authority: str
    ) -> asyncio.Transport:
        """A connection to the target, once the proxy has accepted CONNECT."""
        transport, protocol = await self._reach(connector, request, _TunnelProtocol)
        try:
            timeline = present.get()
            if timeline is not None:
                timeline.stage = Stage.PROXY_CONNECTS
            lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
            if self._login is not None:
                lines.append(f"{hdrs.PROXY_AUTHORIZATION}: {self._login}")
            transport.write("\r\n".join([*lines, "", ""]).encode("ascii"))
            await cast("_TunnelProtocol", protocol).agreed()
        except BaseException:
            transport.abort()
            raise
        if timeline is not None:
            timeline.stage = Stage.TARGET
        return transport


class ProxyingConnector(CheckedConnector):
    """Opens connections through the proxy, if there is one, and directly for excepted targets."""

    def __init__(self, *, egress: EgressProxy | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.egress = egress

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the overridden method's parameter
    ) -> Connection:
        """A connection to which a request may be written at once."""
        if self.egress is not None:
            self.egress.route(req)
        return await super().connect(req, traces, timeout)

    async def check_proxy(self) -> None:
        """Raises ExchangeError unless the proxy, if there is one, can be used."""
        if self.egress is not None:
            try:
                await self.egress.check(self)
            except FOREIGN as exc:
                raise translate(exc) from exc

    async def open_connection(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the overridden method's parameter
    ) -> ResponseHandler:
        """A new connection, through the proxy if the request goes there."""
        if self.egress is None or req.proxy is None:
            return await super().open_connection(req, traces, timeout)
        return await self.egress.connect(self, req, self._factory)


class _TunnelProtocol(asyncio.Protocol):
    """Reads the head of the proxy's response to CONNECT, and no byte after it."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._received = b""

    async def agreed(self) -> None:
        """Waits for the response.

        Raises ProxyFaultError unless the tunnel is established and no bytes follow, because TLS
        does not protect such bytes.
        """
        status = await self._answer
        if not 200 <= status <= 299:
            raise _refusal(status)
        if self._received:
            raise ProxyFaultError(
                OutcomeClass.PROXY, f"{_THE_PROXY} sent data after its response to CONNECT"
            )

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._answer.done():
            return
        try:
            status = self._status()
        except ProxyFaultError as fault:
            self._fail(fault)
            return
        if status is not None:
            self._answer.set_result(status)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._answer.done():
            said = f"{_THE_PROXY} closed the connection without a response to CONNECT"
            self._fail(ProxyFaultError(OutcomeClass.PROXY, said))

    def _fail(self, fault: ProxyFaultError) -> None:
        self._answer.set_exception(fault)
        self._answer.exception()  # otherwise it would be logged when nothing waits for it

    def _status(self) -> int | None:
        """The status once the head is complete; bytes after the head stay unread."""
        while (end := _END_OF_HEAD.search(self._received)) is not None:
            head, rest = self._received[: end.end()], self._received[end.end() :]
            line = _STATUS_LINE.match(head)
            if line is None:
                raise self._not_http()
            self._received = rest
            if (status := int(line[1])) >= 200 or status == 101:
                return status
        if len(self._received) > MAX_HEAD_BYTES:
            raise ProxyFaultError(
                OutcomeClass.PROXY,
                f"{_THE_PROXY} answered CONNECT with more than {MAX_HEAD_BYTES // 1024} KiB "
                "of headers",
            )
        if not b"HTTP/1.".startswith(self._received[:7]):
            raise self._not_http()
        return None

    @staticmethod
    def _not_http() -> ProxyFaultError:
        return ProxyFaultError(
            OutcomeClass.PROXY, f"{_THE_PROXY} did not answer CONNECT with HTTP: is it a proxy?"
        )


def _basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def _authority(url: URL) -> str:
    return f"{url.host_subcomponent}:{url.port}"


def _is_name(host: str) -> bool:
    return ":" not in host and not host.rpartition(".")[2].isdecimal()


def _unreachable(exc: aiohttp.ClientConnectorError | OSError) -> str:
    said = f"{_THE_PROXY} cannot be reached"
    detail = connecting_detail(exc)
    return f"{said}: {detail}" if detail else said


def _refusal(status: int) -> ProxyFaultError:
    if status == _PROXY_AUTHENTICATION_REQUIRED:
        return ProxyFaultError(
            OutcomeClass.PROXY,
            f"{_THE_PROXY} refuses the credentials in that setting, or requires some (HTTP 407)",
        )
    if status >= 500:
        said = f"{_THE_PROXY} could not connect to this host (HTTP {status})"
    else:
        said = (
            f"{_THE_PROXY} refuses to connect to this host (HTTP {status}); its operator can allow "
            f"it, or {BYPASS_SETTING} name it where it can be reached directly"
        )
    return ProxyFaultError(OutcomeClass.CONNECT, said)
