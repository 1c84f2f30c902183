"""Answers that come slowly or blown up, in pieces and over a real connection."""

from __future__ import annotations

import asyncio
import json
import socket
import zlib

import httpx
import msgspec
import pytest
import uvicorn

from service.sandbox.app import create_sandbox
from service.sandbox.config import SandboxConfig
from service.sandbox.faults import AnyFault
from service.sandbox.travel import gzip_bomb, pieces, travelling

HEADERS = {"authorization": "Bearer sandbox-key", "x-integration-id": "sandbox:demo"}
BODY = b'{"status":"success"}' * 5000


def struck(*faults, body=BODY):
    return travelling(200, {"x": "y"}, body, [msgspec.convert(each, AnyFault) for each in faults])


def sent(answer):
    return b"".join(piece for piece, _ in pieces(answer))


# --- in pieces ----------------------------------------------------------------------------


def test_a_body_without_faults_is_one_piece():
    assert list(pieces(struck())) == [(BODY, 0.0)]
    assert list(pieces(struck(body=b""))) == [(b"", 0.0)]


@pytest.mark.parametrize("rate", [0.5, 7, 19, 20, 21, 999, 40_000, 10**9])
def test_a_slow_body_comes_at_its_rate_in_no_more_than_twenty_pieces_a_second(rate):
    answer = struck({"kind": "drip", "bytes_per_second": rate})
    parts = list(pieces(answer))
    assert b"".join(piece for piece, _ in parts) == BODY
    assert answer.headers["content-length"] == str(len(BODY))
    assert all(pause >= 1 / 20 for _, pause in parts)
    assert sum(pause for _, pause in parts[:-1]) == pytest.approx(len(BODY) / rate, rel=0.02, abs=1)


def test_a_bloated_body_is_the_page_and_blanks():
    answer = struck({"kind": "bloat", "megabytes": 3}, body=b"[1]")
    whole = sent(answer)
    assert len(whole) == int(answer.headers["content-length"]) == 3_000_000
    assert json.loads(whole) == [1]
    assert max(len(piece) for piece, _ in pieces(answer)) < 100_000
    assert "content-encoding" not in answer.headers


def test_a_body_that_is_large_enough_is_not_bloated():
    body = b" " * 1_000_001
    assert sent(struck({"kind": "bloat", "megabytes": 1}, body=body)) == body


@pytest.mark.parametrize("megabytes", [1, 3, 64])
def test_a_bomb_unpacks_to_the_beginning_of_a_page_and_blanks(megabytes):
    packed = gzip_bomb(megabytes)
    assert len(packed) < 2000 * megabytes
    assert gzip_bomb(megabytes) is packed
    unpacker, size, begin = zlib.decompressobj(wbits=31), 0, b""
    while not unpacker.eof:
        part = unpacker.decompress(packed, 1_000_000)
        packed = unpacker.unconsumed_tail
        begin = begin or part[:100]
        assert part.isspace() or not size
        size += len(part)
    assert size == megabytes * 1_000_000
    assert json.loads(begin + b"]}}")["data"]["results"] == []


def test_a_bomb_is_announced_as_gzip_and_is_not_bloated():
    answer = struck({"kind": "bloat"}, {"kind": "bomb", "megabytes": 1}, {"kind": "bloat"})
    assert answer.headers["content-encoding"] == "gzip"
    assert sent(answer) == gzip_bomb(1)
    assert answer.headers["content-length"] == str(len(gzip_bomb(1)))


@pytest.mark.parametrize("kind", ["truncate", "drop"])
def test_half_of_a_bloated_body_is_half_of_all_of_it(kind):
    answer = struck({"kind": "bloat", "megabytes": 2}, {"kind": kind, "after": 0.5}, body=b"[]")
    assert sent(answer) == b"[]" + b" " * 999_998
    announced = {"truncate": 1_000_000, "drop": 2_000_000}[kind]
    assert answer.headers["content-length"] == str(announced)


@pytest.mark.parametrize(
    "unfit",
    [
        {"kind": "drip"},
        {"kind": "drip", "bytes_per_second": 0},
        {"kind": "bomb", "megabytes": 0},
        {"kind": "bloat", "megabytes": 100_000},
    ],
)
def test_a_fault_that_cannot_be_carried_out_is_refused(unfit):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(unfit, AnyFault)


# --- over a connection --------------------------------------------------------------------


@pytest.fixture
async def server():
    """A sandbox that is really served, and its address."""
    config = uvicorn.Config(
        create_sandbox(SandboxConfig(courses=30, quiet=True)),
        log_config=None,
        date_header=False,
        access_log=False,
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        yield server, url
        server.should_exit = True
        await serving


@pytest.fixture
async def client(server):
    async with httpx.AsyncClient(base_url=server[1]) as client:
        yield client


async def courses(client):
    return await client.get("/v1/lms/courses", headers=HEADERS)


async def fault(client, **what):
    answer = await client.post("/control/faults", json=what)
    assert answer.status_code == 201, answer.text


async def test_a_slow_body_arrives_whole(client):
    whole = (await courses(client)).content
    await fault(client, kind="drip", bytes_per_second=20 * len(whole) // 4)
    async with client.stream("GET", "/v1/lms/courses", headers=HEADERS) as answer:
        parts = [part async for part in answer.aiter_raw()]
    assert b"".join(parts) == whole
    assert len(parts) > 1
    assert answer.headers["content-length"] == str(len(whole))


async def test_a_bloated_page_is_a_page(client):
    page = (await courses(client)).json()
    await fault(client, kind="bloat", megabytes=2)
    answer = await courses(client)
    assert len(answer.content) == 2_000_000
    assert answer.json() == page


async def test_a_bomb_is_small_on_the_wire_and_large_behind_it(client):
    await fault(client, kind="bomb", megabytes=5)
    async with client.stream("GET", "/v1/lms/courses", headers=HEADERS) as answer:
        unpacked = b"".join([part async for part in answer.aiter_bytes()])
    assert len(unpacked) == 5_000_000
    assert answer.num_bytes_downloaded == int(answer.headers["content-length"]) < 10_000


async def test_a_slow_body_ends_with_its_connection(server, client):
    await fault(client, kind="drip", bytes_per_second=25)
    async with client.stream("GET", "/v1/lms/courses", headers=HEADERS) as answer:
        assert await anext(answer.aiter_raw())
        assert server[0].server_state.tasks
    async with asyncio.timeout(10):
        while server[0].server_state.tasks:  # noqa: ASYNC110 the server has no event for it
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    "what", [{"kind": "drip", "bytes_per_second": 1}, {"kind": "delay", "seconds": 3000}]
)
async def test_an_answer_ends_when_nobody_waits_for_it_any_more(what):
    app = create_sandbox(SandboxConfig(courses=3, quiet=True))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://sandbox") as client:
        await fault(client, **what)
    begun, messages = asyncio.Event(), iter([{"type": "http.request", "body": b""}])

    async def receive():
        for message in messages:
            return message
        begun.set()
        return {"type": "http.disconnect"}

    async def send(message):
        assert message.get("more_body", True)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/v1/lms/courses",
        "raw_path": b"/v1/lms/courses",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in HEADERS.items()],
        "extensions": {},
        "state": {},
    }
    async with asyncio.timeout(10):
        await app(scope, receive, send)
    assert begun.is_set()
