"""Through a forward proxy: pushes and pages, judged here first, and its faults told apart."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from aiohttp.abc import ResolveResult
from aiohttp.client_reqrep import ConnectionKey

from service.clients import proxying
from service.clients.address_guard import AddressGuard
from service.clients.exchange import ExchangeError
from service.clients.proxying import EgressProxy
from service.clients.transport import OutboundClient, open_client
from service.clients.upstream import PageQuery, UpstreamClient
from service.clients.webhook_sender import Receiver
from service.domain.access.upstream_credential import UpstreamCredential
from service.domain.delivery.outcome import Outcome, OutcomeClass
from service.domain.egress.routes import Routes, read_egress_proxy
from service.domain.errors import (
    UpstreamProxyError,
    UpstreamTargetRefusedError,
    UpstreamUnavailableError,
)
from tests.authority import Authority
from tests.integration.clients.conftest import Exchange, Listen
from tests.integration.clients.forward_proxy import ForwardProxy
from tests.integration.clients.test_transport import Names, OnlyThese, ok
from tests.unit.egress.test_address_guard import FORBIDDEN_ADDRESSES, FORBIDDEN_URLS

PAGE = json.dumps({"status": "success", "data": {"results": [], "next": None}}).encode()

MakeProxy = Callable[..., Awaitable[ForwardProxy]]


@pytest.fixture
async def make_proxy() -> AsyncIterator[MakeProxy]:
    made: list[ForwardProxy] = []

    async def make(
        *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", **options: Any
    ) -> ForwardProxy:
        proxy = ForwardProxy(**options)
        await proxy.listen(tls, host)
        made.append(proxy)
        return proxy

    yield make
    for proxy in made:
        await proxy.stop()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


class Loopback(OnlyThese):
    """Resolves `hook.example` to what the guard of these tests allows, and nothing else."""

    def __init__(self, **names: list[str]) -> None:
        super().__init__(**({"hook": ["127.0.0.1"]} | names))


def through(
    proxy: ForwardProxy | str,
    *bypassed: str,
    allowed: tuple[str, ...] = ("127.0.0.1",),
    lookup: Names | None = None,
    ca_file: Path | None = None,
) -> OutboundClient:
    url = proxy if isinstance(proxy, str) else proxy.url
    routes = Routes(read_egress_proxy(url), bypassed)
    return open_client(
        AddressGuard(allowed), lookup=lookup or Loopback(), routes=routes, ca_file=ca_file
    )


async def push(client: OutboundClient, url: str, seconds: float = 10, **options: Any) -> Outcome:
    headers = {"webhook-id": "evt_1"}
    return await Receiver(client).post(url, headers, b"{}", timeout=seconds, **options)


async def page(exchange: Exchange) -> None:
    await exchange.answer(200, PAGE)


# --- what goes through ---------------------------------------------------------------------------


@pytest.mark.parametrize("login", ["", "user:pa%3Ass%40", "user:", "\u00fcser:geheim\u00df"])
@pytest.mark.parametrize("proxy_tls", [False, True], ids=["http proxy", "https proxy"])
@pytest.mark.parametrize("target_tls", [False, True], ids=["http", "https"])
async def test_pushes_and_pages_go_through_the_proxy(
    listen: Listen,
    make_proxy: MakeProxy,
    authority: Authority,
    login: str,
    *,
    proxy_tls: bool,
    target_tls: bool,
):
    tls = authority.server("127.0.0.1", "hook.example")
    proxy = await make_proxy(tls=tls if proxy_tls else None)
    plain = read_egress_proxy(f"http://{login}@h") if login else None
    proxy.login = f"{plain.user}:{plain.password}" if plain else ""
    url = proxy.url.replace("://", f"://{login}@") if login else proxy.url
    proxy.names["hook.example"] = "127.0.0.1"
    peer = await listen(page, tls=tls if target_tls else None)
    scheme = "https" if target_tls else "http"
    base = f"{scheme}://hook.example:{peer.port}"
    async with through(url, ca_file=authority.file) as client:
        for number in range(3):
            outcome = await push(client, f"{base}/hook?n={number}")
            assert outcome.delivered, outcome
            assert outcome.connect_ms is not None
        found = await UpstreamClient(client).fetch_page(
            UpstreamCredential(f"{base}/v1", "key"), "w:1", PageQuery()
        )
        assert found.next is None
    assert [one.target for one in peer.requests][:3] == [f"/hook?n={n}" for n in range(3)]
    assert all("proxy-authorization" not in one.headers for one in peer.requests)
    assert all(one.headers["host"] == f"hook.example:{peer.port}" for one in peer.requests)
    if target_tls:  # by name, and once: the connection inside is kept alive
        assert set(proxy.targets) == {f"hook.example:{peer.port}"}
        assert len(proxy.requests) == 1
        assert proxy.requests[0][2]["host"] == f"hook.example:{peer.port}"
        assert peer.connections == 1
    else:
        assert proxy.targets[0] == f"{base}/hook?n=0"
        assert proxy.connections == 1
    assert proxy.requests[0][2].get("proxy-authorization", "") != "" if login else True


async def test_the_same_on_uvloop_whose_tls_is_its_own(tmp_path: Path):
    """TLS inside TLS, as the workers and the API do it."""

    async def run() -> list[bool]:
        authority = Authority(tmp_path)
        tls = authority.server("127.0.0.1")
        proxy = ForwardProxy(login="a:b")
        await proxy.listen(tls)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(2)
                writer.write(b"HTTP/1.1 204 No\r\n\r\n")

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
        port = server.sockets[0].getsockname()[1]
        async with through(proxy, ca_file=authority.file) as client:
            outcomes = [await push(client, f"https://127.0.0.1:{port}/") for _ in range(3)]
        server.close()
        await proxy.stop()
        assert len(proxy.requests) == 1
        return [one.delivered for one in outcomes]

    def in_its_own_loop() -> list[bool]:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run())

    assert await asyncio.to_thread(in_its_own_loop) == [True] * 3


async def test_ipv6_literals_of_proxy_and_target(
    listen: Listen, make_proxy: MakeProxy, authority: Authority
):
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        proxy = await make_proxy(host="::1")
    except OSError:
        pytest.skip("no IPv6 loopback here")
    tls = authority.server("::1")
    server = await asyncio.start_server(_no_content, "::1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    async with server, through(proxy, allowed=("::1",), ca_file=authority.file) as client:
        outcome = await push(client, f"https://[::1]:{port}/")
    assert outcome.delivered, outcome
    assert proxy.targets == [f"[::1]:{port}"]


async def _no_content(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 204 No\r\n\r\n")
    await reader.read()
    writer.close()


async def test_the_environments_proxies_are_ignored(
    listen: Listen, make_proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch
):
    proxy = await make_proxy()
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, proxy.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    peer = await listen(ok)
    async with open_client(AddressGuard(["127.0.0.1"]), routes=Routes(None)) as client:
        assert (await push(client, peer.url)).delivered
    assert proxy.connections == 0
    async with through(proxy) as client:  # and so is its NO_PROXY
        assert (await push(client, peer.url)).delivered
    assert proxy.connections == 1


@pytest.mark.parametrize(
    "pattern", ["127.0.0.1", "127.0.0.0/8", "127.0.0.1:{port}", "*", "*:{port}"]
)
async def test_what_is_reached_without_it_goes_directly_and_under_the_guard(
    listen: Listen, make_proxy: MakeProxy, pattern: str
):
    proxy, peer = await make_proxy(), await listen(ok)
    pattern = pattern.format(port=peer.port)
    async with through(proxy, pattern) as client:
        assert (await push(client, peer.url)).delivered
    async with through(proxy, pattern, allowed=()) as client:
        refused = await push(client, peer.url)
    assert refused.kind is OutcomeClass.REFUSED_TARGET
    assert (proxy.connections, peer.connections) == (0, 1)


# --- what is judged here -------------------------------------------------------------------------


async def test_nothing_of_a_large_corpus_reaches_the_proxy(make_proxy: MakeProxy):
    proxy = await make_proxy()
    addresses = [one for one in FORBIDDEN_ADDRESSES if one[:1].isdigit() or one.count(":") > 1]
    names = OnlyThese(
        **{f"n{number}": [one] for number, one in enumerate(addresses)},
        **{f"m{number}": ["8.8.8.8", one] for number, one in enumerate(addresses)},
    )
    urls = [
        *(
            f"{scheme}://{f'[{one}]' if ':' in one else one}/"
            for one in addresses
            for scheme in ("http", "https")
        ),
        *(f"https://{name}/" for name in names.names),
        # What is forbidden of the others is their form, not their host.
        *(url for url in FORBIDDEN_URLS if "example.com" not in url),
    ]
    async with through(proxy, allowed=(), lookup=names) as client:
        for url in urls:
            outcome = await push(client, url)
            assert not outcome.delivered
            assert outcome.kind in (OutcomeClass.REFUSED_TARGET, OutcomeClass.PROTOCOL), url
    assert proxy.connections == 0


async def test_a_refusal_says_the_same_as_without_a_proxy(make_proxy: MakeProxy):
    proxy = await make_proxy()
    names = Loopback(private=["10.0.0.1"])
    for url in ("https://10.0.0.1/", "http://[::1]/", "https://private.example/"):
        said = []
        for routes in (None, Routes(read_egress_proxy(proxy.url))):
            async with open_client(AddressGuard(), lookup=names, routes=routes) as client:
                outcome = await push(client, url)
                said.append((outcome.kind, outcome.error))
                with pytest.raises(UpstreamTargetRefusedError):
                    await UpstreamClient(client).fetch_page(
                        UpstreamCredential(url, "key"), "w:1", PageQuery()
                    )
        assert said[0] == said[1], url
        assert "COURSEWIRE_ALLOWED_TARGETS" in (said[0][1] or "")
    assert proxy.connections == 0


async def test_a_name_that_does_not_resolve_here_is_left_to_the_proxy(
    listen: Listen, make_proxy: MakeProxy, authority: Authority
):
    dotted = {"elsewhere.example": "127.0.0.1", "elsewhere.example.": "127.0.0.1"}
    proxy = await make_proxy(names=dotted)
    peer = await listen(ok, tls=authority.server("elsewhere.example"))
    url = f"https://elsewhere.example:{peer.port}/"
    async with through(proxy, allowed=(), ca_file=authority.file) as client:
        assert (await push(client, url)).delivered
        assert (await push(client, url.replace(".example", ".example."))).delivered


async def test_a_resolver_that_hangs_does_not_hold_up_what_the_proxy_resolves(
    listen: Listen, make_proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch
):
    class Hanging(Names):
        asked = 0

        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
        ) -> list[ResolveResult]:
            self.asked += 1
            await asyncio.Event().wait()
            raise AssertionError

    monkeypatch.setattr(proxying, "LOOK_UP_SECONDS", 0.01)
    proxy = await make_proxy(names={"far.example": "127.0.0.1"})
    peer = await listen(ok)
    names = Hanging()
    async with through(proxy, lookup=names) as client:
        for _ in range(3):
            assert (await push(client, f"http://far.example:{peer.port}/")).delivered
    assert names.asked == 1


async def test_an_allowed_name_needs_no_judgement_and_that_of_the_proxy_vouches_for_itself_alone(
    make_proxy: MakeProxy,
):
    proxy = await make_proxy()
    async with through(proxy, allowed=()) as client:  # the proxy is on loopback, and is used
        outcome = await push(client, "https://elsewhere.example/")
        assert outcome.kind is OutcomeClass.CONNECT
        assert proxy.connections == 1
        refused = await push(client, f"http://127.0.0.1:{proxy.port}/")
        assert refused.kind is OutcomeClass.REFUSED_TARGET
    async with through(proxy, "127.0.0.1", allowed=()) as client:
        refused = await push(client, f"http://127.0.0.1:{proxy.port}/")
        assert refused.kind is OutcomeClass.REFUSED_TARGET
    async with through(proxy, allowed=("hook.example",)) as client:
        assert (await push(client, "https://hook.example:1/")).kind is OutcomeClass.CONNECT
    assert proxy.connections == 2


async def test_tls_is_verified_end_to_end(
    listen: Listen, make_proxy: MakeProxy, authority: Authority, tmp_path: Path
):
    proxy = await make_proxy(names={"hook.example": "127.0.0.1"})
    other = Authority(tmp_path, "an authority of the proxy")
    for tls, said in (
        (authority.server("other.example"), "doesn't match|Hostname mismatch|not valid for"),
        (other.server("hook.example"), "COURSEWIRE_CA_FILE"),
    ):
        peer = await listen(ok, tls=tls)
        async with through(proxy, ca_file=authority.file) as client:
            outcome = await push(client, f"https://hook.example:{peer.port}/")
        assert outcome.kind is OutcomeClass.TLS
        assert any(one in (outcome.error or "") for one in said.split("|")), outcome
        assert peer.requests == []


# --- whose fault it is ---------------------------------------------------------------------------


async def both_ways(client: OutboundClient, url: str) -> tuple[Outcome, str]:
    outcome = await push(client, url)
    with pytest.raises(UpstreamUnavailableError) as failure:
        await UpstreamClient(client).fetch_page(UpstreamCredential(url, "key"), "w:1", PageQuery())
    proxied = isinstance(failure.value, UpstreamProxyError)
    assert proxied == (outcome.kind is OutcomeClass.PROXY)
    return outcome, str(failure.value)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_is_not_there_is_our_fault(closed_port: int, scheme: str):
    url = f"{scheme}://user:secret-of-the-proxy@127.0.0.1:{closed_port}"
    for target in ("http://hook.example/", "https://hook.example/"):
        async with through(url) as client:
            outcome, told = await both_ways(client, target)
            assert outcome.kind is OutcomeClass.PROXY
            for said in (outcome.error or "", told):
                assert "the proxy of COURSEWIRE_EGRESS_PROXY cannot be reached" in said
                assert "secret" not in said


async def test_a_proxy_whose_name_does_not_resolve_is_our_fault():
    async with through("http://proxy.example:3128") as client:
        outcome = await push(client, "https://hook.example/")
    assert outcome.kind is OutcomeClass.PROXY


async def test_a_proxy_whose_certificate_is_not_trusted_is_our_fault(
    make_proxy: MakeProxy, authority: Authority
):
    proxy = await make_proxy(tls=authority.server("127.0.0.1"))
    async with through(proxy) as client:
        outcome = await push(client, "https://hook.example/")
    assert outcome.kind is OutcomeClass.PROXY
    assert "COURSEWIRE_CA_FILE" in (outcome.error or "")
    assert proxy.requests == []


@pytest.mark.parametrize("given", ["", "user:wrong-secret@", "wrong-user@"])
async def test_wrong_credentials_are_our_fault(make_proxy: MakeProxy, given: str):
    proxy = await make_proxy(login="user:right")
    url = f"http://{given}127.0.0.1:{proxy.port}"
    async with through(url) as client:
        outcome, told = await both_ways(client, "https://hook.example/")
        assert outcome.kind is OutcomeClass.PROXY
        for said in (outcome.error or "", told):
            assert "407" in said
            assert "COURSEWIRE_EGRESS_PROXY" in said
            assert "wrong" not in said
            assert "right" not in said


@pytest.mark.parametrize("status", [400, 403, 404, 405, 429, 500, 502, 503, 504, 301, 101])
async def test_a_target_that_the_proxy_does_not_connect_to_counts_like_one_that_is_not_there(
    make_proxy: MakeProxy, status: int
):
    proxy = await make_proxy()
    proxy.refuses = status
    async with through(proxy) as client:
        outcome, told = await both_ways(client, "https://hook.example/")
    assert outcome.kind is OutcomeClass.CONNECT
    assert outcome.status is None
    assert outcome.connect_ms is None
    assert f"HTTP {status}" in (outcome.error or "")
    assert f"HTTP {status}" in told


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


def says(data: bytes, *, then_hangs: bool = True) -> Any:
    async def fault(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _head: bytes
    ) -> None:
        await _send(writer, data)
        if then_hangs:
            await reader.read()

    return fault


OK = b"HTTP/1.1 200 OK\r\n"
HOSTILE = {
    "garbage": (says(b"\x16\x03\x01 garbage"), "did not answer CONNECT with HTTP"),
    "ssh": (says(b"SSH-2.0-OpenSSH_9.2\r\n"), "did not answer CONNECT with HTTP"),
    "no status": (says(b"HTTP/1.1 yes\r\n\r\n"), "did not answer CONNECT with HTTP"),
    "http 2": (says(b"HTTP/2 200\r\n\r\n"), "did not answer CONNECT with HTTP"),
    "closes": (says(b"", then_hangs=False), "closed the connection"),
    "breaks off": (says(OK, then_hangs=False), "closed the connection"),
    "huge headers": (says(OK + b"X: " + b"y" * 2**20), "of headers"),
    "endless headers": (says(OK + b"X: y\r\n" * 2**15), "of headers"),
    "bytes behind": (says(OK + b"\r\nHTTP/1.1 204 No Content\r\n\r\n"), "after its response"),
    "one byte behind": (says(OK + b"\r\n\0"), "after its response"),
    "a second answer": (says(OK + b"\r\n" + OK + b"\r\n"), "after its response"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_proxy_that_answers_connect_wrongly_is_our_fault_and_nothing_is_sent(
    make_proxy: MakeProxy, name: str
):
    proxy = await make_proxy()
    proxy.fault, said = HOSTILE[name]
    async with through(proxy) as client:
        outcome = await push(client, "https://hook.example/")
        assert outcome.kind is OutcomeClass.PROXY
        assert said in (outcome.error or "")
        assert len(proxy.requests) == 1
        gc.collect()


async def test_a_tunnel_may_be_answered_in_parts_and_with_other_successes(
    listen: Listen, make_proxy: MakeProxy, authority: Authority
):
    peer = await listen(ok, tls=authority.server("127.0.0.1"))
    proxy = await make_proxy()
    for answer in (
        b"HTTP/1.0 200 Connection established\r\n\r\n",
        b"HTTP/1.1 201 Created\r\nContent-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 \r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\n\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-Many: y\r\n" * 500 + b"\r\n",
    ):

        async def fault(
            reader: asyncio.StreamReader,
            writer: asyncio.StreamWriter,
            head: bytes,
            answer: bytes = answer,
        ) -> None:
            target = head.split(b" ")[1].decode()
            opened = await proxy.open(target)
            assert opened is not None
            for byte in (answer[:1], answer[1:9], answer[9:]):
                await _send(writer, byte)

            async def pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
                while data := await source.read(65536):
                    await _send(sink, data)
                sink.close()

            await asyncio.gather(pipe(reader, opened[1]), pipe(opened[0], writer))

        proxy.fault = fault
        async with through(proxy, ca_file=authority.file) as client:
            outcome = await push(client, peer.url)
        assert outcome.delivered, (answer, outcome)


async def test_time_that_runs_out_says_whom_was_waited_for(
    make_proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch
):
    proxy = await make_proxy()
    proxy.fault = says(b"")  # asked to connect, it says nothing
    async with through(proxy) as client:
        outcome = await push(client, "https://hook.example/", seconds=0.2)
    assert outcome.kind is OutcomeClass.TIMEOUT
    assert "had not connected to this host" in (outcome.error or "")

    with socket.socket() as full:  # nobody accepts: connections to it hang
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for one in fillers:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        async with through(f"http://127.0.0.1:{port}") as client:
            outcome = await push(client, "https://hook.example/", seconds=0.2)
            assert outcome.kind is OutcomeClass.PROXY
            assert "no connection to the proxy" in (outcome.error or "")
            monkeypatch.setattr(proxying, "REACH_SECONDS", 0.1)
            outcome = await push(client, "https://hook.example/")
            assert outcome.kind is OutcomeClass.PROXY
            assert "cannot be reached" in (outcome.error or "")
        for one in fillers:
            one.close()


async def test_a_407_to_a_plain_http_request_is_an_answer_like_any_other(make_proxy: MakeProxy):
    """Nothing tells whose it is: the proxy's, or the target's."""
    proxy = await make_proxy(login="user:right")
    async with through(f"http://127.0.0.1:{proxy.port}") as client:
        outcome = await push(client, "http://hook.example/")
    assert (outcome.kind, outcome.status) == (OutcomeClass.STATUS, 407)


# --- the pool, and what must not show ------------------------------------------------------------


async def test_connections_are_kept_apart_by_target(
    listen: Listen, make_proxy: MakeProxy, authority: Authority
):
    proxy = await make_proxy()
    tls = authority.server("127.0.0.1")
    peers = [await listen(ok, tls=tls) for _ in range(2)]
    async with through(proxy, f"127.0.0.1:{peers[1].port}", ca_file=authority.file) as client:
        for _ in range(3):
            for peer in peers:
                assert (await push(client, peer.url)).delivered
    assert [peer.connections for peer in peers] == [1, 1]
    assert proxy.connections == 1
    assert proxy.targets == [f"127.0.0.1:{peers[0].port}"]


async def test_the_credentials_show_nowhere(
    listen: Listen, make_proxy: MakeProxy, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    proxy = await make_proxy(login="the-user:the-secret")
    peer = await listen(ok)
    async with through(proxy) as client:
        assert (await push(client, peer.url)).delivered
        kinds = (ConnectionKey, EgressProxy)
        kept = [one for one in gc.get_objects() if isinstance(one, kinds)]
    assert {type(one) for one in kept} == {*kinds}
    shown = [repr(one) for one in [*kept, read_egress_proxy(proxy.url)]]
    assert not any("the-secret" in one or "the-user" in one for one in [*shown, caplog.text])


async def test_it_can_be_tried(make_proxy: MakeProxy, closed_port: int):
    proxy = await make_proxy(login="user:right")
    async with through(proxy) as client:
        await client.check_proxy()
    assert proxy.targets == ["coursewire-check.invalid:443"]
    for url, said in (
        (f"http://127.0.0.1:{closed_port}", "cannot be reached"),
        (f"http://user:wrong@127.0.0.1:{proxy.port}", "407"),
    ):
        async with through(url) as client:
            with pytest.raises(ExchangeError) as fault:
                await client.check_proxy()
        assert said in str(fault.value)
    async with open_client(AddressGuard()) as client:
        await client.check_proxy()  # there is none
