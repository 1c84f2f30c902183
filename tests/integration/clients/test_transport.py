"""The shared client: guarded at every connection, quiet, and closed without a trace."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from typing import Any

import httpx
import pytest
import uvloop
from aiohttp.abc import AbstractResolver, ResolveResult

from service.clients import address_guard as egress
from service.clients import transport
from service.clients.address_guard import AddressGuard
from service.clients.aiohttp_private import CLOSED_PER_TURN, AnswerProtocol
from service.clients.exchange import ExchangeError, Timeline
from service.clients.transport import OutboundClient, open_client
from service.clients.upstream import PageQuery, UpstreamClient
from service.clients.webhook_sender import Receiver
from service.domain.access.upstream_credential import UpstreamCredential
from service.domain.delivery.outcome import OutcomeClass
from service.domain.errors import CoursewireError
from tests.integration.clients.conftest import Exchange, Listen
from tests.unit.egress.test_address_guard import FORBIDDEN_ADDRESSES, FORBIDDEN_URLS

# Ways to write this machine's address in a URL; `{port}` is where a peer listens.
LOOPBACK_URLS = (
    "http://127.0.0.1:{port}/",
    "http://127.0.0.1.:{port}/",
    "http://127.1:{port}/",
    "http://127.0.1:{port}/",
    "http://127.000.000.001:{port}/",
    "http://2130706433:{port}/",
    "http://017700000001:{port}/",
    "http://0x7f000001:{port}/",
    "http://0x7F.1:{port}/",
    "http://0x7f.0.0.0x1:{port}/",
    "http://0177.1:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://0:{port}/",
    "http://0.0.0.0:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[0:0:0:0:0:ffff:127.0.0.1]:{port}/",
    "http://[::ffff:0.0.0.0]:{port}/",
    "http://[::]:{port}/",
    "http://[::1]:{port}/",
    "http://[::1%25lo]:{port}/",
    "http://[64:ff9b::7f00:1]:{port}/",
    "http://localhost:{port}/",
    "http://LOCALHOST.:{port}/",
    "http://127。0。0。1:{port}/",
    "http://\uff11\uff12\uff17.0.0.1:{port}/",
    "http://example.com@127.0.0.1:{port}/",
    "http://example.com\\@127.0.0.1:{port}/",
    "http://127.0.0.1%2f:{port}/",
    "http://loop.example:{port}/",
    "http://many.example:{port}/",
    "http://mapped.example:{port}/",
)


class Names(AbstractResolver):
    """A name server under the test's control; other names are left to the system."""

    def __init__(self, **names: list[str]) -> None:
        self.names = {f"{name}.example": addresses for name, addresses in names.items()}
        self.system = egress.SystemResolver()
        self.closed = False

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        if host not in self.names:
            return await self.system.resolve(host, port, family)
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in self.names[host]
        ]

    async def close(self) -> None:
        self.closed = True
        await self.system.close()


async def ok(exchange: Exchange) -> None:
    await exchange.answer(200, b"ok", Set_Cookie="session=1; Path=/")


@pytest.mark.parametrize("filtered", [True, False], ids=["names filtered", "socket alone"])
@pytest.mark.parametrize("url", LOOPBACK_URLS)
async def test_no_way_of_writing_a_private_address_leads_to_a_connection(
    listen: Listen, url: str, filtered: bool, monkeypatch: pytest.MonkeyPatch
):
    peer = await listen(ok)
    names = Names(
        loop=["127.0.0.1"], many=["127.0.0.1", "10.0.0.1", "::1"], mapped=["::ffff:127.0.0.1"]
    )
    if not filtered:  # whatever name resolution lets through, the socket does not
        monkeypatch.setattr(
            egress.GuardedResolver, "resolve", lambda self, *args, **kw: names.resolve(*args, **kw)
        )
    async with open_client(AddressGuard(), lookup=names) as client:
        with pytest.raises((ExchangeError, httpx.InvalidURL, ValueError)) as failure:
            await client.get(url.format(port=peer.port))
    if isinstance(failure.value, ExchangeError):
        assert failure.value.kind in (OutcomeClass.REFUSED_TARGET, OutcomeClass.DNS)
    assert peer.connections == 0


class OnlyThese(Names):
    """A name server that knows no other names."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        if host not in self.names:
            raise OSError(f"{host} is not known")
        return await super().resolve(host, port, family)


async def test_nothing_of_a_large_corpus_is_connected_to_by_pushes_or_polls(
    monkeypatch: pytest.MonkeyPatch,
):
    """Every forbidden address as a literal, behind a name and among others behind a name, and
    every URL that registration refuses, had it been registered all the same."""
    connected: list[Any] = []

    async def connect(_socket: socket.socket, address: Any) -> None:
        connected.append(address)
        raise OSError("somebody connects")

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", connect)
    addresses = [one for one in FORBIDDEN_ADDRESSES if one[:1].isdigit() or one.count(":") > 1]
    names = OnlyThese(
        **{f"n{number}": [one] for number, one in enumerate(addresses)},
        **{f"m{number}": [one, "10.0.0.1"] for number, one in enumerate(addresses)},
    )
    urls = [
        *(f"http://{f'[{one}]' if ':' in one else one}/" for one in addresses),
        *(f"http://{name}/" for name in names.names),
        *FORBIDDEN_URLS,
    ]
    assert len(urls) > 250
    async with open_client(AddressGuard(), lookup=names) as client:
        receiver, upstream = Receiver(client), UpstreamClient(client)
        for url in urls:
            outcome = await receiver.post(url, {}, b"{}", timeout=5)
            assert not outcome.delivered
            assert outcome.status is None
            with pytest.raises((CoursewireError, httpx.InvalidURL, ValueError)):
                await upstream.fetch_page(UpstreamCredential(url, "key"), "w:1", PageQuery())
        assert connected == []
        names.names["n0.example"] = ["8.8.8.8"]  # and one that may be: it would be noticed
        await receiver.post("http://n0.example/", {}, b"{}", timeout=5)
    assert connected == [("8.8.8.8", 80)]


async def test_a_name_rebound_to_a_private_address_is_refused_at_the_next_connection(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
):
    async def script(exchange: Exchange) -> None:
        await exchange.answer(200, Connection="close")

    monkeypatch.setattr(transport, "DNS_CACHE_SECONDS", 0)
    peer = await listen(script)
    names = Names(hook=["127.0.0.1"])
    async with open_client(AddressGuard(["127.0.0.1"]), lookup=names) as client:
        url = f"http://hook.example:{peer.port}/"
        assert (await client.get(url)).status_code == 200
        names.names["hook.example"] = ["127.0.0.2"]
        with pytest.raises(ExchangeError) as refusal:
            await client.get(url)
    assert refusal.value.kind is OutcomeClass.REFUSED_TARGET
    assert "hook.example resolves to 127.0.0.2" in str(refusal.value)
    assert peer.connections == 1


async def test_of_a_names_addresses_a_usable_one_is_connected_to(listen: Listen):
    peer = await listen(ok)
    names = Names(mixed=["10.0.0.1", "127.0.0.1", "::1"])
    async with open_client(AddressGuard(["127.0.0.1"]), lookup=names) as client:
        assert (await client.get(f"http://mixed.example:{peer.port}/")).status_code == 200


async def test_an_allowed_name_opens_its_address_for_no_other_name(listen: Listen):
    peer = await listen(ok)
    names = Names(trusted=["127.0.0.1"], other=["127.0.0.1"])
    async with open_client(AddressGuard(["trusted.example"]), lookup=names) as client:
        assert (await client.get(f"http://trusted.example:{peer.port}/")).status_code == 200
        for url in (f"http://other.example:{peer.port}/", f"http://127.0.0.1:{peer.port}/"):
            with pytest.raises(ExchangeError):
                await client.get(url)
    assert peer.connections == 1


def test_the_guard_and_vouching_hold_on_uvloop():
    async def main() -> None:
        async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(hello, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            names = Names(trusted=["127.0.0.1"], other=["127.0.0.1", "127.0.0.2"])
            async with open_client(AddressGuard(["trusted.example"]), lookup=names) as client:
                assert (await client.get(f"http://trusted.example:{port}/")).status_code == 200
                for host in ("other.example", "127.0.0.1", "[::1]"):
                    with pytest.raises(ExchangeError) as refusal:
                        await client.get(f"http://{host}:{port}/")
                    assert refusal.value.kind is OutcomeClass.REFUSED_TARGET

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def test_it_names_itself_and_keeps_no_cookies(client: OutboundClient, listen: Listen):
    peer = await listen(ok)
    for _ in range(2):
        await client.get(peer.url)
    assert all(request.headers["user-agent"].startswith("Coursewire") for request in peer.requests)
    assert all("cookie" not in request.headers for request in peer.requests)


async def test_connections_are_kept_alive(client: OutboundClient, listen: Listen):
    peer = await listen(ok)
    timelines = [Timeline(), Timeline()]
    for timeline in timelines:
        await client.get(peer.url, extensions={Timeline.EXTENSION: timeline})
    assert peer.connections == 1
    assert [timeline.reused for timeline in timelines] == [False, True]


async def test_idle_connections_are_closed_a_few_at_a_time(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
):
    count = 2 * CLOSED_PER_TURN + 7
    monkeypatch.setattr(transport, "KEEPALIVE_SECONDS", 0.1)
    closed: Counter[int] = Counter()  # by the turn of the event loop
    turn = 0

    async def count_turns() -> None:
        nonlocal turn
        while closed.total() < count:
            await asyncio.sleep(0)
            turn += 1

    close = AnswerProtocol.close

    def counting(protocol: AnswerProtocol) -> None:
        closed[turn] += 1
        close(protocol)

    async def all_at_once(exchange: Exchange) -> None:
        if exchange.target == "/together":
            await peer.until(lambda: len(peer.requests) == count)
        await exchange.answer(200)

    monkeypatch.setattr(AnswerProtocol, "close", counting)
    peer = await listen(all_at_once)
    async with open_client(AddressGuard(["127.0.0.1"]), max_connections_per_host=count) as client:
        url = f"http://127.0.0.1:{peer.port}"
        turns = asyncio.create_task(count_turns())
        answers = await asyncio.gather(*(client.get(f"{url}/together") for _ in range(count)))
        assert {answer.status_code for answer in answers} == {200}
        async with asyncio.timeout(10):
            await turns
        await peer.until(lambda: peer.disconnections == count)
        assert max(closed.values()) <= CLOSED_PER_TURN
        # Those that become idle later are closed too.
        assert (await client.get(f"{url}/alone")).status_code == 200
        await peer.until(lambda: peer.disconnections == count + 1)


class Sockets:
    """The sockets of the client, and how many were open at most."""

    def __init__(self) -> None:
        self.most = 0
        self._opened: list[socket.socket] = []

    def add(self, opened: socket.socket) -> None:
        self._opened.append(opened)
        self.most = max(self.most, self.count())

    def count(self) -> int:
        return sum(one.fileno() >= 0 for one in self._opened)


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> Sockets:
    sockets = Sockets()
    open_socket = AddressGuard.open_socket

    def counting(guard: AddressGuard, target: Any) -> socket.socket:
        opened = open_socket(guard, target)
        sockets.add(opened)
        return opened

    monkeypatch.setattr(AddressGuard, "open_socket", counting)
    return sockets


async def test_idle_connections_count_and_end_for_those_to_other_hosts(
    listen: Listen, sockets: Sockets
):
    peer = await listen(ok, host="0.0.0.0")
    async with open_client(AddressGuard(["127.0.0.0/8"]), max_connections=8) as client:

        async def reuses(host: int) -> bool:
            timeline = Timeline()
            url = f"http://127.0.0.{host}:{peer.port}/"
            await client.get(url, extensions={Timeline.EXTENSION: timeline})
            return timeline.reused

        for hosts in (range(1, 9), range(9, 33), range(33, 41)):
            assert not any(await asyncio.gather(*map(reuses, hosts)))
        assert sockets.most == 8
        await peer.until(lambda: peer.disconnections == 32)
        assert all([await reuses(host) for host in range(33, 41)])
        assert not await reuses(1)  # instead of the one that has been idle for the longest time
        assert [await reuses(host) for host in (40, 34, 33)] == [True, True, False]
    assert sockets.most == 8


async def test_those_that_their_peers_have_ended_make_no_room(listen: Listen, sockets: Sockets):
    peer = await listen(ok, host="0.0.0.0")
    async with open_client(AddressGuard(["127.0.0.0/8"]), max_connections=2) as client:
        for hosts in ((1, 2), (3, 4), (5, 6)):
            urls = [f"http://127.0.0.{host}:{peer.port}/" for host in hosts]
            await asyncio.gather(*map(client.get, urls))
            if hosts == (1, 2):
                for request in peer.requests:
                    request.close()
                async with asyncio.timeout(10):
                    while sockets.count():  # noqa: ASYNC110 - the client tells nobody
                        await asyncio.sleep(0)
        assert sockets.most == 2


async def test_connections_in_use_do_not_end_for_others(listen: Listen, sockets: Sockets):
    async def once_all_have_come(exchange: Exchange) -> None:
        await peer.until(lambda: len(peer.requests) >= 4)
        await exchange.answer(200)

    peer = await listen(once_all_have_come, host="0.0.0.0")
    async with open_client(AddressGuard(["127.0.0.0/8"]), max_connections=4) as client:
        urls = [f"http://127.0.0.{host}:{peer.port}/" for host in range(1, 13)]
        answers = await asyncio.gather(*map(client.get, urls))
    assert [answer.status_code for answer in answers] == [200] * 12
    assert (peer.connections, sockets.most) == (12, 4)


async def test_proxies_in_the_environment_are_ignored(
    listen: Listen, monkeypatch: pytest.MonkeyPatch, closed_port: int
):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    peer = await listen(ok)
    async with open_client(AddressGuard(["127.0.0.1"])) as client:
        assert (await client.get(peer.url)).status_code == 200


async def test_a_host_that_never_answers_leaves_connections_to_others(listen: Listen):
    silent, healthy = await listen(None), await listen(ok)
    async with open_client(
        AddressGuard(["127.0.0.1"]), max_connections=6, max_connections_per_host=4
    ) as client:
        stuck = [asyncio.create_task(client.get(silent.url)) for _ in range(20)]
        await silent.until(lambda: silent.connections == 4)
        assert (await client.get(healthy.url)).status_code == 200
        assert silent.connections == 4
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)


async def test_a_failure_keeps_the_library_exception_as_its_cause(
    client: OutboundClient, closed_port: int
):
    with pytest.raises(ExchangeError) as failure:
        await client.get(f"http://127.0.0.1:{closed_port}/?token=secret")
    assert failure.value.kind is OutcomeClass.CONNECT
    assert "secret" not in str(failure.value)
    causes: list[Any] = [failure.value]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    assert isinstance(causes[-1], ConnectionRefusedError)


async def test_a_body_left_half_read_ends_its_connection(client: OutboundClient, listen: Listen):
    async def script(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n")
        while True:
            await exchange.send(b"x" * 65536)

    peer = await listen(script)
    async with client.stream("GET", peer.url) as response:
        async for _ in response.aiter_raw():
            break
    await peer.until(lambda: peer.disconnections == 1)


async def test_closing_ends_every_connection_and_leaves_no_task(listen: Listen):
    peer = await listen(ok)
    names = Names(hook=["127.0.0.1"])
    before = asyncio.all_tasks()
    async with open_client(AddressGuard(["127.0.0.1"]), lookup=names) as client:
        url = f"http://hook.example:{peer.port}/"
        await asyncio.gather(*(client.get(url) for _ in range(5)))
        assert not names.closed
        opened = peer.connections
    await peer.until(lambda: peer.disconnections == opened)
    assert names.closed
    ours = asyncio.all_tasks() - before
    assert not [task for task in ours if "clients/conftest" not in repr(task)]
