"""Clients that take their time, or send without end, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest
import uvicorn
from litestar import Litestar, Request, Response, get, post

from service.api.http.size_limits import Gate
from service.api.http.slow_clients import BoundedProtocol

pytestmark = pytest.mark.slow

SOON = 0.3  # seconds, instead of the true bounds
PATIENCE = 30  # seconds in which what is to be seen must be seen


class Impatient(BoundedProtocol):
    head_seconds = SOON
    body_seconds = SOON
    unread_seconds = SOON


class Patient(BoundedProtocol):
    unread_seconds = 1


@post("/echo", request_max_body_size=1_000)
async def echo(request: Request) -> bytes:
    return await request.body()


@get("/large")
async def large() -> Response[bytes]:
    return Response(b"x" * 16_000_000, media_type="application/octet-stream")


@get("/slow")
async def slow(request: Request) -> bytes:
    return await request.body()


@get("/small")
async def small() -> dict[str, str]:
    return {"status": "ok"}


async def until(condition) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.01)


class Served:
    def __init__(self, server: uvicorn.Server) -> None:
        self.server = server
        self.port = server.servers[0].sockets[0].getsockname()[1]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def say(self, *parts: bytes) -> bytes:
        """What is answered to what is sent, until the server closes."""
        reader, writer = await self.connect()
        for part in parts:
            writer.write(part)
            await writer.drain()
        async with asyncio.timeout(PATIENCE):
            answer = await reader.read()
        writer.close()
        return answer

    async def until_alone(self) -> None:
        """Waits until the server has no connection."""
        await until(lambda: not self.server.server_state.connections)


@pytest.fixture
async def serve() -> AsyncIterator:
    running = []

    async def serve(**options) -> Served:
        app = Litestar([echo, large, small, slow], openapi_config=None)
        config = uvicorn.Config(
            Gate(app),
            **{"http": Impatient, "port": 0, "lifespan": "off", **options},
            log_config=None,
            h11_max_incomplete_event_size=49_152,
        )
        server = uvicorn.Server(config)
        running.append((server, asyncio.create_task(server.serve())))
        await until(lambda: server.started)
        return Served(server)

    yield serve
    for server, task in running:
        server.should_exit = True
        await task


def told(answer: bytes) -> tuple[int, str]:
    """The status and the type of a problem, which ends the connection."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower(), answer
    assert b"application/problem+json" in head.lower(), answer
    return int(head.split()[1]), json.loads(body)["type"].rpartition(":")[2]


@pytest.mark.parametrize(
    "sent",
    [b"", b"G", b"GET /small HTTP/1.1\r\nhost: a\r\n", b"GET /small HTTP/1.1\r\nhost: a\r\nx: "],
    ids=["nothing", "a letter", "no end", "half a header"],
)
async def test_a_head_that_does_not_end_is_not_waited_for(serve, sent) -> None:
    served = await serve()
    assert told(await served.say(sent)) == (408, "request-timeout")
    await served.until_alone()


async def test_a_byte_at_a_time_gains_no_time(serve) -> None:
    served = await serve()
    reader, writer = await served.connect()

    async def drip() -> None:
        writer.write(b"GET /small HTTP/1.1\r\nx: ")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(SOON / 10)

    dripping = asyncio.create_task(drip())
    async with asyncio.timeout(PATIENCE):
        answer = await reader.readuntil(b"}")
    assert told(answer) == (408, "request-timeout")
    await served.until_alone()
    dripping.cancel()
    with contextlib.suppress(asyncio.CancelledError, ConnectionError):
        await dripping
    writer.close()


@pytest.mark.parametrize("kind", [b"content-length: 100", b"transfer-encoding: chunked"])
async def test_a_body_that_does_not_end_is_not_waited_for(serve, kind) -> None:
    served = await serve()
    head = b"POST /echo HTTP/1.1\r\nhost: a\r\n" + kind + b"\r\n\r\n"
    assert told(await served.say(head, b"1\r\nx\r\n")) == (408, "request-timeout")
    await served.until_alone()


async def test_a_head_request_that_does_not_end_is_refused_without_a_body(serve) -> None:
    served = await serve()
    answer = await served.say(b"HEAD /slow HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nx")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408")
    assert body == b""
    await served.until_alone()


async def test_a_body_that_nobody_asked_for_holds_no_connection(serve) -> None:
    served = await serve()
    answer = await served.say(b"GET /small HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nx")
    assert answer.startswith(b"HTTP/1.1 200")
    await served.until_alone()


async def test_a_second_request_is_waited_for_like_the_first(serve) -> None:
    served = await serve()
    whole = b"GET /small HTTP/1.1\r\nhost: a\r\n\r\n"
    answer = await served.say(whole, b"GET /small HTTP/1.1\r\nhost: a\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert told(answer[answer.index(b"HTTP/1.1 408") :]) == (408, "request-timeout")
    await served.until_alone()


async def test_an_answer_that_is_not_read_holds_no_connection(serve) -> None:
    served = await serve()
    reader, writer = await served.connect()
    writer.write(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n")
    await served.until_alone()
    writer.close()
    del reader


async def test_a_reader_that_takes_its_time_gets_it_all(serve) -> None:
    served = await serve(http=Patient)
    reader, writer = await served.connect()
    writer.write(b"GET /large HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    size = 0
    while piece := await reader.read(1_000_000):
        size += len(piece)
        await asyncio.sleep(0.02)
    writer.close()
    assert size > 16_000_000


async def test_idle_connections_are_kept_for_a_while_and_closed(serve) -> None:
    served = await serve(timeout_keep_alive=1)
    reader, writer = await served.connect()
    for _ in range(2):
        writer.write(b"GET /small HTTP/1.1\r\nhost: a\r\n\r\n")
        assert b"ok" in await reader.readuntil(b"}")
        await asyncio.sleep(SOON * 1.5)  # longer than any request may take, shorter than idle ones
    async with asyncio.timeout(PATIENCE):
        assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize(
    ("sent", "problem"),
    [
        (b"nonsense\r\n\r\n", (400, "malformed")),
        (b"GET /small HTTP/1.1\r\n\r\n", (400, "malformed")),
        (b"GET /small HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 20_000, (431, "headers-too-large")),
        (b"GET /" + b"x" * 60_000, (431, "headers-too-large")),
        (b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n", (414, "uri-too-long")),
        (
            b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 17_000 + b"\r\n\r\n",
            (431, "headers-too-large"),
        ),
    ],
    ids=["no HTTP", "no host", "headers", "a long line", "a long URL", "a long header"],
)
async def test_what_is_no_request_is_a_problem(serve, sent, problem) -> None:
    served = await serve()
    with contextlib.suppress(ConnectionError):
        assert told(await served.say(sent)) == problem
    await served.until_alone()


async def test_connections_beyond_the_limit_are_told_so(serve) -> None:
    served = await serve(limit_concurrency=2, http=BoundedProtocol)
    held = [await served.connect() for _ in range(2)]
    await until(lambda: len(served.server.server_state.connections) == 2)
    answer = await served.say(b"GET /small HTTP/1.1\r\nhost: a\r\n\r\n")
    assert told(answer) == (503, "overloaded")
    assert b"retry-after: 5" in answer
    for _, writer in held:
        writer.close()
    await served.until_alone()
    answer = await served.say(b"GET /small HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
