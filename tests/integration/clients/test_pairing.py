"""Every request gets its own answer or none, whatever a peer sends besides, and whenever."""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop
from aiohttp import TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import Connection

from service.clients import transport
from service.clients.address_guard import AddressGuard
from service.clients.exchange import ExchangeError
from service.clients.transport import OutboundClient, open_client
from service.clients.upstream import PageQuery, UpstreamClient
from service.clients.webhook_sender import Receiver
from service.domain.access.upstream_credential import UpstreamCredential
from service.domain.delivery.outcome import OutcomeClass
from service.domain.errors import UpstreamUnavailableError
from tests.integration.clients.conftest import Exchange, Listen

FOREIGN_PAGE = b'{"status":"success","data":{"results":[{"id":"foreign"}],"next":null}}'
JUNK = (
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nforeign",
    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(FOREIGN_PAGE), FOREIGN_PAGE),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nforeign\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nforeign\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 70\r\n\r\nforeign",
    b"HTTP/1.1 200 OK\r\n\r\nforeign",
    b"HTTP/1.1 204 No Content\r\nX: y",
    b"HTTP/1.1 2",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 408 Late\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 500 Foreign\r\nContent-Length: 0\r\n\r\n",
    b"H",
    b"0\r\n\r\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"xx",
    b"\0" * 20_000,
)
REFUSALS = tuple(one for one in JUNK if re.match(rb"HTTP/1.1 [45]", one))


def answer(status: int, body: bytes, form: str) -> bytes:
    """A whole answer in one of the forms that HTTP has for it."""
    match form:
        case "counted":
            head, sent = f"Content-Length: {len(body)}\r\n", body
        case "chunked":
            head = "Transfer-Encoding: chunked\r\n"
            sent = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        case "trailers":
            head = "Transfer-Encoding: chunked\r\n"
            sent = b"%x\r\n%s\r\n0\r\nX: y\r\n\r\n" % (len(body), body)
        case "informed":
            hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
            return hints + answer(status, body, "counted")
        case _:
            head, sent = f"Content-Length: {len(body)}\r\nConnection: close\r\n", body
    return f"HTTP/1.1 {status} Own\r\n{head}\r\n".encode() + sent


FORMS = ("counted", "chunked", "trailers", "informed", "closing")


class Hostile:
    """Answers every request with what `own` makes of it, and sends other bytes besides."""

    def __init__(self, own: Callable[[str], bytes]) -> None:
        self.own = own
        self.behind = b""  # sent with the next answer
        self.apart = False  # whether in a segment of its own
        self.cut = 0  # where the next answer is cut into two segments
        self.writers: list[asyncio.StreamWriter] = []
        self.opened = 0
        self.accepted = asyncio.Condition()
        self.handlers: set[asyncio.Task[None]] = set()
        self.url = ""

    def inject(self, junk: bytes) -> None:
        """Sends into every connection there is."""
        for writer in self.writers:
            if not writer.is_closing():
                writer.write(junk)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.handlers.add(task)
        async with self.accepted:
            self.writers.append(writer)
            self.opened += 1
            self.accepted.notify_all()
        with suppress(asyncio.CancelledError, OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
                await reader.readexactly(int(length[1]) if length else 0)
                sent = self.own(head)
                cut = min(self.cut, len(sent) - 1)
                if cut:
                    writer.write(sent[:cut])
                    await turns(2)
                if self.apart:
                    writer.write(sent[cut:])
                    writer.write(self.behind)
                else:
                    writer.write(sent[cut:] + self.behind)
                self.behind, self.cut = b"", 0
        self.writers.remove(writer)
        writer.close()
        self.handlers.discard(task)


@asynccontextmanager
async def hostile(
    own: Callable[[str], bytes], tls: ssl.SSLContext | None
) -> AsyncIterator[Hostile]:
    peer = Hostile(own)
    async with await asyncio.start_server(peer.serve, "127.0.0.1", 0, ssl=tls) as server:
        port = server.sockets[0].getsockname()[1]
        peer.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        yield peer
        for task in list(peer.handlers):
            task.cancel()
        await asyncio.gather(*peer.handlers)


class Chosen:
    """Does something when a connection was chosen and the request is not yet written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.then: Callable[[], Awaitable[None]] | None = None
        choose = TCPConnector.connect

        async def connect(connector: TCPConnector, *arguments: Any) -> Connection:
            connection = await choose(connector, *arguments)
            if self.then is not None:
                then, self.then = self.then, None
                await then()
            return connection

        monkeypatch.setattr(TCPConnector, "connect", connect)  # what the checks are built on


async def turns(number: int) -> None:
    """Let the loop go round, in which what was sent may be taken in."""
    for _ in range(number):
        await asyncio.sleep(0)


POINTS = ("none", "none", "none", "behind", "apart", "idle", "chosen", "fresh")
Ask = Callable[[OutboundClient, str, str], Awaitable[str]]


async def push(client: OutboundClient, url: str, name: str) -> str:
    """What a push was answered, which its answer begins with."""
    outcome = await Receiver(client).post(
        f"{url}/{name}", {"webhook-id": name}, b"x" * 200, timeout=10
    )
    if outcome.status is None:
        raise ExchangeError(outcome.kind, outcome.error or "")
    return f"{outcome.status} {outcome.excerpt.decode()}"


async def ask_for_page(client: OutboundClient, url: str, name: str) -> str:
    upstream = UpstreamClient(client)
    try:
        page = await upstream.fetch_page(
            UpstreamCredential(url, "key"), f"w:{name}", PageQuery(cursor=name)
        )
    except UpstreamUnavailableError as exc:
        if exc.status is not None:
            return f"{exc.status} "
        raise ExchangeError(OutcomeClass.PROTOCOL, str(exc)) from exc
    return f"200 {msgspec.json.decode(page.results[0])['id']}"


def own_push(form: Callable[[], str]) -> Callable[[str], bytes]:
    def own(head: str) -> bytes:
        name = head.split(" ", 2)[1][1:]
        return answer(500 if name.endswith("7") else 200, name.encode(), form())

    return own


def own_page(form: Callable[[], str]) -> Callable[[str], bytes]:
    def own(head: str) -> bytes:
        found = re.search(r"cursor=(\w+)", head)
        assert found is not None
        page = {"status": "success", "data": {"results": [{"id": found[1]}], "next": None}}
        return answer(200, json.dumps(page).encode(), form())

    return own


class Trouble(msgspec.Struct, frozen=True):
    """What a peer sends besides one answer: `junk`, when, and how many turns before it counts."""

    junk: bytes
    point: str
    loops: int

    async def prepare(self, peer: Hostile, chosen: Chosen) -> None:
        """Before the request is made."""
        if self.point in ("behind", "apart"):
            peer.behind, peer.apart = self.junk, self.point == "apart"
        elif self.point == "idle":
            await self.strike(peer)
        elif self.point == "chosen":
            chosen.then = lambda: self.strike(peer)
        elif self.point == "fresh":
            for writer in peer.writers:
                writer.close()
            await turns(6)
            opened = peer.opened
            chosen.then = lambda: self.strike_new(peer, opened)

    async def strike(self, peer: Hostile) -> None:
        peer.inject(self.junk)
        await turns(self.loops)

    async def strike_new(self, peer: Hostile, opened: int) -> None:
        async with peer.accepted:
            await peer.accepted.wait_for(lambda: peer.opened > opened)
        await self.strike(peer)

    def may_refuse(self, failure: ExchangeError) -> bool:
        """Whether this may have failed the request: only on a connection of its own."""
        early = "it began before the request was sent" in str(failure)
        return early and self.point in ("fresh", "chosen") and self.junk not in REFUSALS

    def refused(self, got: str) -> bool:
        """Whether the answer is what was said before anything was asked on the connection, where
        no other request can be meant."""
        new = self.point in ("fresh", "chosen") and self.junk in REFUSALS
        return new and got[:3] in ("408", "500")


async def try_everything(
    seed: int,
    chosen: Chosen,
    ask: Ask,
    make: Callable[[Callable[[], str]], Callable[[str], bytes]],
    tls: tuple[ssl.SSLContext | None, ssl.SSLContext | None],
) -> None:
    chance = random.Random(seed)
    own = make(lambda: chance.choice(FORMS))
    async with (
        hostile(own, tls[0]) as peer,
        open_client(AddressGuard(["127.0.0.1"]), tls=tls[1]) as client,
    ):
        for number in range(250):
            name = f"r{number}"
            trouble = Trouble(chance.choice(JUNK), chance.choice(POINTS), chance.randrange(4))
            told = f"seed {seed}, request {number}: {trouble}"
            peer.cut = chance.choice((0, 0, chance.randrange(1, 60)))
            await trouble.prepare(peer, chosen)
            try:
                got = await ask(client, peer.url, name)
            except ExchangeError as exc:
                if trouble.may_refuse(exc):
                    continue
                raise AssertionError(told) from exc
            if trouble.refused(got):
                continue
            assert trouble.point != "fresh", f"{told}: {got}"
            status = 500 if ask is push and name.endswith("7") else 200
            assert got == f"{status} {name}", told
        assert 20 < peer.opened < 245  # some connections were given up, and others used again


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("kind", ["pushes", "pages"])
async def test_no_request_gets_an_answer_that_was_sent_for_another(
    monkeypatch: pytest.MonkeyPatch,
    server_tls: ssl.SSLContext,
    certificate: Path,
    kind: str,
    secure: bool,
    seed: int,
):
    trusting = ssl.create_default_context(cafile=certificate)
    tls = (server_tls, trusting) if secure else (None, None)
    ask, make = (push, own_push) if kind == "pushes" else (ask_for_page, own_page)
    await try_everything(seed, Chosen(monkeypatch), ask, make, tls)


def test_the_same_holds_on_uvloop(
    monkeypatch: pytest.MonkeyPatch, server_tls: ssl.SSLContext, certificate: Path
):
    chosen = Chosen(monkeypatch)
    trusting = ssl.create_default_context(cafile=certificate)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(try_everything(3, chosen, push, own_push, (None, None)))
        runner.run(try_everything(4, chosen, ask_for_page, own_page, (server_tls, trusting)))


def bare(status: int, body: bytes, form: str) -> bytes:
    """The forms without a body, too."""
    if form == "empty":
        return b"HTTP/1.1 204 Own\r\n\r\n"
    return answer(status, body, form)


@pytest.mark.parametrize(
    ("ask", "form"),
    [(push, form) for form in ("empty", "counted", "chunked", "informed")]
    + [(ask_for_page, form) for form in ("counted", "chunked", "informed")],
)
async def test_a_connection_is_used_again_only_if_its_answer_ended_with_its_last_byte(
    ask: Ask, form: str
):
    page = b'{"status":"success","data":{"results":[{"id":"own"}],"next":null}}'
    async with hostile(lambda head: bare(200, page, form), None) as peer:
        for junk in (b"", *JUNK):
            async with open_client(AddressGuard(["127.0.0.1"])) as client:
                before, peer.behind = peer.opened, junk
                for _ in range(2):
                    await ask(client, peer.url, "own")
                assert peer.opened - before == (2 if junk else 1), junk


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 204 Own\r\nContent-Length: 5\r\n\r\n",  # of which it may send them yet
        b"HTTP/1.1 204 Own\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 101 Own\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"\r\nHTTP/1.1 204 Own\r\n\r\n",
        b"HTTP/1.1 200 Own\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n",
        b"HTTP/1.1 200 Own\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 Own\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_where_an_answer_ends_in_doubt_its_connection_is_not_used_again(sent: bytes):
    async with (
        hostile(lambda head: sent, None) as peer,
        open_client(AddressGuard(["127.0.0.1"])) as client,
    ):
        for _ in range(3):
            await push(client, peer.url, "own")
        assert peer.opened == 3


async def test_an_answer_before_the_whole_request_was_sent_ends_the_connection(listen: Listen):
    async def eager(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        names.append(head.split(" ", 2)[1])
        writer.write(answer(200, names[-1].encode(), "counted"))
        await over.wait()
        writer.close()

    names: list[str] = []
    over = asyncio.Event()
    async with (
        await asyncio.start_server(eager, "127.0.0.1", 0) as server,
        open_client(AddressGuard(["127.0.0.1"])) as client,
    ):
        port = server.sockets[0].getsockname()[1]
        for name in ("/1", "/2", "/3"):
            outcome = await Receiver(client).post(
                f"http://127.0.0.1:{port}{name}", {}, b"x" * 20_000_000, timeout=10
            )
            assert (outcome.status, outcome.excerpt.decode()) == (200, name)
        over.set()
    assert names == ["/1", "/2", "/3"]


@pytest.mark.parametrize("ask", [push, ask_for_page])
async def test_a_busy_connection_is_not_used_for_more_than_a_minute(ask: Ask):
    now = 1000.0
    page = b'{"status":"success","data":{"results":[{"id":"own"}],"next":null}}'
    async with (
        hostile(lambda head: answer(200, page, "counted"), None) as peer,
        open_client(AddressGuard(["127.0.0.1"]), clock=lambda: now) as client,
    ):
        opened = []
        for _ in range(13):  # each 10 s later
            await ask(client, peer.url, "own")
            opened.append(peer.opened)
            now += 10
    assert opened == [1] * 6 + [2] * 6 + [3]


async def test_a_name_that_moved_is_followed_by_the_next_connection(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
):
    now = 1000.0

    async def script(exchange: Exchange) -> None:
        await exchange.answer(200, exchange.local.encode())

    class Moving(AbstractResolver):
        address = "127.0.0.1"

        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            one = ResolveResult(
                hostname=host, host=self.address, port=port, family=family, proto=0, flags=0
            )
            return [one]

        async def close(self) -> None:
            pass

    monkeypatch.setattr(transport, "DNS_CACHE_SECONDS", 0)
    names = Moving()
    peer = await listen(script, host="0.0.0.0")
    async with open_client(
        AddressGuard(["127.0.0.0/8"]), lookup=names, clock=lambda: now
    ) as client:
        found = []
        for _ in range(9):
            outcome = await Receiver(client).post(
                f"http://moving.example:{peer.port}/", {}, b"{}", timeout=10
            )
            found.append(outcome.excerpt.decode())
            names.address = "127.0.0.2"
            now += 10
    assert found == ["127.0.0.1"] * 6 + ["127.0.0.2"] * 3
