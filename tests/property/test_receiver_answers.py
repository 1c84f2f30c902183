"""Whatever a receiver answers, byte by byte, an attempt ends with an outcome that it bears out."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.clients.address_guard import AddressGuard
from service.clients.transport import open_client
from service.clients.webhook_sender import Receiver
from service.domain.delivery.outcome import Outcome
from tests.chaos.answers import FAILED, NO_CONTENT, OK, TIMED_OUT, answer
from tests.chaos.wire import Server, Wire, accepts

Then = Literal["stay", "close", "reset"]

PATIENCE = 0.1  # seconds of an attempt whose answer may never end
BOUND = 20.0  # seconds after which an attempt hangs, however busy the machine is

REAL = (
    NO_CONTENT,
    OK,
    FAILED,
    TIMED_OUT,
    answer(b"202 Accepted", b"content-type: application/json", body=b'{"ok":true}'),
    answer(b"429 Too Many Requests", b"retry-after: 1", body=b"later"),
    answer(b"200 OK", b"transfer-encoding: chunked", body=None) + b"2\r\nok\r\n0\r\n\r\n",
    answer(b"200 OK", b"content-encoding: gzip", body=gzip.compress(b"ok", mtime=0)),
    answer(b"410 Gone", b"connection: close", body=b"gone"),
    b"HTTP/1.1 100 Continue\r\n\r\n" + NO_CONTENT,
    b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + FAILED,
    b"HTTP/1.0 200 OK\r\nserver: old\r\n\r\nuntil it closes",
)
PIECES = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b":", b"\0", b"\xff", b"\xef\xbb\xbf", b"2", b"0",
    b"200", b"HTTP/1.1 ", b"HTTP/1.1 204 No Content\r\n", b"content-length: 3\r\n", b"-", b"\t",
    b"transfer-encoding: chunked\r\n", NO_CONTENT, FAILED, b"x" * 9_000, b"a: b\r\n" * 130,
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A real answer after some edits: bytes replaced, removed, added, repeated, or the end cut."""
    data = draw(st.sampled_from(REAL))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 12)))
        how = draw(st.sampled_from(("replace", "remove", "add", "repeat", "cut", "flip")))
        piece = draw(st.sampled_from(PIECES) | st.binary(min_size=1, max_size=4))
        data = {
            "replace": data[:start] + piece + data[end:],
            "remove": data[:start] + data[end:],
            "add": data[:start] + piece + data[start:],
            "repeat": data[:end] + data[start:],
            "cut": data[:start],
            "flip": data[:start] + bytes(byte ^ piece[0] for byte in data[start:end]) + data[end:],
        }[how]
    return data


class Peer:
    """Answers each request with the next bytes that it was given, then goes on as it was told."""

    def __init__(self) -> None:
        self.answers: list[tuple[bytes, Then]] = []
        self.server = Server(self._serve)

    async def _serve(self, wire: Wire) -> None:
        while await wire.request() is not None:
            data, then = self.answers.pop(0)
            await wire.send(data)
            if then == "reset":
                wire.reset()
            if then != "stay":
                return


class Line:
    """The push path to such a peer."""

    def __init__(self) -> None:
        self.peer = Peer()
        self.peer.server.start()
        self.client = open_client(AddressGuard(["127.0.0.0/8"]))
        self._receiver = Receiver(self.client)

    async def push(self, seconds: float, data: bytes, then: Then) -> Outcome:
        """One attempt that is answered so."""
        self.peer.answers = [(data, then)]
        async with asyncio.timeout(BOUND):
            return await self._receiver.post(
                f"{self.peer.server.url}/hook", {"webhook-id": "evt_1"}, b"{}", timeout=seconds
            )

    async def close(self) -> None:
        await self.client.aclose()
        await self.peer.server.close()


@contextmanager
def line() -> Iterator[tuple[asyncio.Runner, Line]]:
    async def make() -> Line:
        return Line()

    with asyncio.Runner() as runner:
        made = runner.run(make())
        try:
            yield runner, made
        finally:
            runner.run(made.close())


def search(examples: int, *, derandomize: bool) -> None:
    with line() as (runner, to_peer):

        @settings(max_examples=examples, derandomize=derandomize)
        @given(mutated(), st.sampled_from(("stay", "close", "reset")))
        def bears_out(data: bytes, then: Then) -> None:
            outcome = runner.run(to_peer.push(PATIENCE, data, then))
            assert isinstance(outcome, Outcome)
            assert not outcome.delivered or accepts(data), data
            # Nothing of it is left for the next attempt.
            after = runner.run(to_peer.push(PATIENCE, FAILED, "stay"))
            assert not after.delivered, data

        bears_out()


def test_a_real_answer_means_what_its_status_says():
    with line() as (runner, to_peer):
        for data in REAL:
            then: Then = "close" if b"until it closes" in data else "stay"
            outcome = runner.run(to_peer.push(BOUND, data, then))
            assert outcome.delivered == accepts(data), data


def test_an_answer_that_was_altered_is_never_believed_without_a_status_line():
    search(150, derandomize=True)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_no_answer_of_thousands_is_believed_without_a_status_line():
    search(6_000, derandomize=False)
