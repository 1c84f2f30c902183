"""What this machine runs out of is told from what a receiver does."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from service.clients.address_guard import AddressGuard, SystemResolver
from service.clients.transport import OutboundClient, open_client
from service.clients.webhook_sender import Receiver
from service.domain.delivery.outcome import Outcome, OutcomeClass
from tests.integration.clients.conftest import Exchange, Listen


async def attempt(client: OutboundClient, url: str, seconds: float = 10.0) -> Outcome:
    return await Receiver(client).post(url, {}, b"{}", timeout=seconds)


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Nothing more can be opened by this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def ok(exchange: Exchange) -> None:
    await exchange.answer()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "nobody.invalid"])
async def test_a_process_without_descriptors_is_short_of_them(listen: Listen, host: str):
    peer = await listen(ok)
    url = f"http://{host}:{peer.port}/"
    async with open_client(AddressGuard(["127.0.0.0/8", "localhost"])) as client:
        with no_descriptor_left():
            outcome = await attempt(client, url)
        assert outcome.shortage
        assert outcome.error == "this process has no file descriptor left"
        after = await attempt(client, url)
        assert not after.shortage
        assert after.delivered == (host != "nobody.invalid")


async def test_a_machine_without_ports_is_short_of_them(
    listen: Listen, monkeypatch: pytest.MonkeyPatch, closed_port: int
):
    def with_the_only_port(_guard: AddressGuard, _target: object) -> socket.socket:
        opened = socket.socket()
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(("127.0.0.1", closed_port))
        return opened

    async def late(exchange: Exchange) -> None:
        await answered.wait()
        await exchange.answer()

    answered = asyncio.Event()
    peer = await listen(late)
    monkeypatch.setattr(AddressGuard, "open_socket", with_the_only_port)
    async with open_client(AddressGuard(["127.0.0.1"])) as client:
        first = asyncio.create_task(attempt(client, peer.url))
        await peer.until(lambda: len(peer.requests) == 1)
        outcome = await attempt(client, peer.url)
        answered.set()
        assert (await first).delivered
    assert (outcome.kind, outcome.shortage) == (OutcomeClass.CONNECT, True)
    assert outcome.error == "this machine has no local port or address left for the connection"


@pytest.mark.parametrize(
    "number", [errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL, errno.EAGAIN]
)
async def test_other_shortages_are_known_by_their_number(
    client: OutboundClient, monkeypatch: pytest.MonkeyPatch, number: int
):
    def refuse(_guard: AddressGuard, _target: object) -> socket.socket:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(AddressGuard, "open_socket", refuse)
    async with open_client(AddressGuard(["127.0.0.0/8"])) as short:
        outcome = await attempt(short, "http://127.0.0.1:9/")
    assert outcome.shortage
    assert outcome.error.startswith("this machine has no ")


async def test_memory_that_lacks_is_a_shortage(monkeypatch: pytest.MonkeyPatch):
    def refuse(_guard: AddressGuard, _target: object) -> socket.socket:
        raise MemoryError

    monkeypatch.setattr(AddressGuard, "open_socket", refuse)
    async with open_client(AddressGuard(["127.0.0.0/8"])) as short:
        outcome = await attempt(short, "http://127.0.0.1:9/")
    assert (outcome.shortage, outcome.error) == (True, "this machine has no memory left")


async def test_a_lookup_for_which_no_thread_can_be_started_is_a_shortage(
    client: OutboundClient, monkeypatch: pytest.MonkeyPatch
):
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    outcome = await attempt(client, "http://nobody.invalid/")
    assert (outcome.kind, outcome.shortage) == (OutcomeClass.DNS, True)


async def test_a_lookup_that_waits_for_others_is_a_shortage(monkeypatch: pytest.MonkeyPatch):
    loop, began, over = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def look_up(*_args: object, **_options: object) -> list[object]:
        loop.call_soon_threadsafe(began.set)
        over.wait()
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    names = SystemResolver(threads=1, patience=0.1)
    async with open_client(AddressGuard(), lookup=names) as client:
        first = asyncio.create_task(attempt(client, "http://hangs.invalid/"))
        await began.wait()
        second = await attempt(client, "http://waits.invalid/")
        over.set()
        own = await first
    assert (second.kind, second.shortage) == (OutcomeClass.DNS, True)
    assert (own.kind, own.shortage) == (OutcomeClass.DNS, False)


async def test_waiting_for_one_of_the_process_connections_is_a_shortage_and_for_the_hosts_not(
    listen: Listen,
):
    silent, other = await listen(None), await listen(ok)
    for total, host in ((2, 10), (10, 2)):
        async with open_client(
            AddressGuard(["127.0.0.1"]), max_connections=total, max_connections_per_host=host
        ) as client:
            before = silent.connections
            stuck = [asyncio.create_task(attempt(client, silent.url)) for _ in range(2)]
            await silent.until(lambda before=before: silent.connections == before + 2)
            waiting = other.url if total == 2 else silent.url
            outcome = await attempt(client, waiting, 0.2)
            assert (outcome.kind, outcome.shortage) == (OutcomeClass.TIMEOUT, total == 2)
            if outcome.shortage:
                assert outcome.error == "no connection of this process's 2 was free within 0.2 s"
            for task in stuck:
                task.cancel()
            await asyncio.gather(*stuck, return_exceptions=True)


@pytest.mark.parametrize("url", ["http://127.0.0.1:{closed}/", "http://nobody.invalid/"])
async def test_what_a_receiver_lacks_is_no_shortage_of_ours(
    client: OutboundClient, closed_port: int, url: str
):
    assert not (await attempt(client, url.format(closed=closed_port))).shortage
