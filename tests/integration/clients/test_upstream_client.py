"""Pages, and what each of the upstream's failures becomes."""

from __future__ import annotations

import asyncio
import gzip
import json
import traceback
import tracemalloc
import zlib
from email.utils import formatdate
from urllib.parse import parse_qs

import pytest

from service.clients.address_guard import AddressGuard
from service.clients.transport import OutboundClient, open_client
from service.clients.upstream import PageQuery, RateLimit, UpstreamClient
from service.domain.access.upstream_credential import UpstreamCredential
from service.domain.errors import (
    UpstreamAuthError,
    UpstreamBusyError,
    UpstreamError,
    UpstreamInputError,
    UpstreamModelUnavailableError,
    UpstreamNotFoundError,
    UpstreamNotReadyError,
    UpstreamPageError,
    UpstreamRateLimitedError,
    UpstreamTargetRefusedError,
    UpstreamUnavailableError,
)
from tests.integration.clients.conftest import Exchange, Listen, Peer

KEY = "key-that-must-not-leak"
COURSE = b'{"id":"c1","title":"Caf\xc3\xa9 \\u00e9"}'
PAGE = b'{"status":"success","data":{"next":"cur","results":[' + COURSE + b',{"id":"c2"}]}}'
SQUEEZED = gzip.compress(PAGE, mtime=0)
DEEP = b"[" * 100_000 + b"]" * 100_000  # beyond what any Python lets a decoder recurse
NOW = 1_795_424_000.0


def credential(peer: Peer) -> UpstreamCredential:
    return UpstreamCredential(f"http://127.0.0.1:{peer.port}/v1", KEY)


async def fetch(client: OutboundClient, peer: Peer, **query: object):
    upstream = UpstreamClient(client, timeout=10, clock=lambda: NOW)
    return await upstream.fetch_page(credential(peer), "workday:1", PageQuery(**query))


async def failure(client: OutboundClient, peer: Peer) -> UpstreamError:
    with pytest.raises(UpstreamError) as raised:
        await fetch(client, peer)
    assert KEY not in "".join(traceback.format_exception(raised.value))
    return raised.value


async def test_a_page_comes_as_undecoded_records_with_what_the_headers_say(
    client: OutboundClient, listen: Listen
):
    async def script(exchange: Exchange) -> None:
        await exchange.answer(
            200,
            PAGE,
            Date=formatdate(NOW, usegmt=True),
            ratelimit_limit="300",
            ratelimit_remaining="299",
            ratelimit_reset="12",
        )

    peer = await listen(script)
    page = await fetch(client, peer)
    assert [bytes(record) for record in page.results] == [COURSE, b'{"id":"c2"}']
    assert page.next == "cur"
    assert page.date_ms == int(NOW * 1000)
    assert page.rate == RateLimit(300, 299, 12.0)
    assert page.size == len(PAGE)


async def test_headers_that_say_nothing_usable_are_left_out(client: OutboundClient, listen: Listen):
    async def script(exchange: Exchange) -> None:
        await exchange.answer(
            200,
            b'{"status":"success","data":{"next":null,"results":[]}}',
            Date="yesterday",
            ratelimit_limit="many",
            ratelimit_remaining="-1",
            ratelimit_reset="nan",
        )

    page = await fetch(client, await listen(script))
    assert (page.results, page.next, page.date_ms, page.rate) == ([], None, None, RateLimit())


async def test_the_request_carries_the_key_the_integration_and_every_filter(
    client: OutboundClient, listen: Listen
):
    async def script(exchange: Exchange) -> None:
        await exchange.answer(200, PAGE)

    peer = await listen(script)
    await fetch(
        client,
        peer,
        page_size=100,
        cursor="a+b/c=&d",
        updated_after="2026-11-23T09:30:00.000Z",
        include_deleted=True,
        ids=("c1", "c2"),
    )
    await fetch(client, peer)
    [full, plain] = peer.requests
    path, _, parameters = full.target.partition("?")
    assert path == "/v1/lms/courses"
    assert parse_qs(parameters) == {
        "cursor": ["a+b/c=&d"],
        "ids": ["c1,c2"],
        "include_deleted": ["true"],
        "page_size": ["100"],
        "updated_after": ["2026-11-23T09:30:00.000Z"],
    }
    assert plain.target == "/v1/lms/courses?page_size=250"
    assert full.headers["authorization"] == f"Bearer {KEY}"
    assert full.headers["x-integration-id"] == "workday:1"
    assert full.headers["accept-encoding"] == "gzip"


async def test_a_compressed_page_is_read(client: OutboundClient, listen: Listen):
    async def script(exchange: Exchange) -> None:
        await exchange.answer(200, SQUEEZED, Content_Encoding="gzip")

    page = await fetch(client, await listen(script))
    assert len(page.results) == 2
    assert page.size == len(PAGE)


BY_CODE = [
    ("PLATFORM.RATE_LIMIT_EXCEEDED", 429, UpstreamRateLimitedError),
    ("REMOTE.RATE_LIMIT_EXCEEDED", 503, UpstreamRateLimitedError),
    ("PLATFORM.CONCURRENCY_LIMIT_EXCEEDED", 429, UpstreamBusyError),
    ("PLATFORM.TASK_TIMED_OUT", 504, UpstreamUnavailableError),
    ("REMOTE.SERVICE_UNAVAILABLE", 400, UpstreamUnavailableError),
    ("PLATFORM.UNKNOWN_ERROR", 500, UpstreamUnavailableError),
    ("PLATFORM.INPUT_INVALID", 400, UpstreamInputError),
    ("PLATFORM.AUTHENTICATION_INVALID", 401, UpstreamAuthError),
    ("PLATFORM.IP_NOT_WHITELISTED", 400, UpstreamAuthError),
    ("PLATFORM.INTEGRATION_NOT_FOUND", 400, UpstreamNotFoundError),
    ("INTEGRATION.SETUP_INCOMPLETE", 409, UpstreamNotReadyError),
    ("INTEGRATION.SETUP_SYNC_PENDING", 503, UpstreamNotReadyError),
    ("INTEGRATION.QA_FAILED", 409, UpstreamNotReadyError),
    ("INTEGRATION.MODEL_NOT_AVAILABLE", 400, UpstreamModelUnavailableError),
    ("INTEGRATION.MODEL_NOT_AVAILABLE", 200, UpstreamModelUnavailableError),
    ("SOMETHING.NEW", 503, UpstreamUnavailableError),
    ("SOMETHING.NEW", 401, UpstreamAuthError),
    (None, 429, UpstreamRateLimitedError),
    (None, 400, UpstreamInputError),
    (None, 403, UpstreamAuthError),
    (None, 404, UpstreamNotFoundError),
    (None, 409, UpstreamNotReadyError),
    (None, 418, UpstreamInputError),
    (None, 500, UpstreamUnavailableError),
]


@pytest.mark.parametrize(("code", "status", "kind"), BY_CODE)
async def test_an_error_is_told_by_its_code_and_then_by_its_status(
    client: OutboundClient,
    listen: Listen,
    code: str | None,
    status: int,
    kind: type[UpstreamError],
):
    async def script(exchange: Exchange) -> None:
        detail = {"code": code, "title": "T", "message": f"it says {KEY}", "log_url": None}
        await exchange.answer(status, json.dumps({"status": "error", "error": detail}).encode())

    error = await failure(client, await listen(script))
    assert type(error) is kind
    assert (error.code, error.status) == (code, status)
    assert "it says" in str(error)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (500, UpstreamUnavailableError),
        (502, UpstreamUnavailableError),
        (401, UpstreamAuthError),
        (404, UpstreamNotFoundError),
        (204, UpstreamPageError),
        (302, UpstreamPageError),
    ],
)
@pytest.mark.parametrize(
    "body",
    [
        b"<html><h1>Bad Gateway</h1></html>",
        b"upstream connect error",
        b"",
        b'{"error":"plain"}',
        b'{"error":{"code":7}}',
        b"\xff\xfe",
        b"x" * 100_000,
    ],
)
async def test_an_error_without_a_readable_body_is_told_by_its_status(
    client: OutboundClient, listen: Listen, status: int, kind: type[UpstreamError], body: bytes
):
    async def script(exchange: Exchange) -> None:
        await exchange.answer(status, b"" if status == 204 else body)

    error = await failure(client, await listen(script))
    assert type(error) is kind
    assert (error.code, error.status) == (None, status)


@pytest.mark.parametrize(
    ("status", "headers", "wait"),
    [
        (429, {"Retry_After": "17"}, 17.0),
        (429, {"Retry_After": "17", "ratelimit_reset": "40"}, 17.0),
        (429, {"ratelimit_reset": "40"}, 40.0),
        (429, {"Retry_After": formatdate(NOW + 30, usegmt=True)}, 30.0),
        (
            429,
            {
                "Retry_After": formatdate(NOW + 1030, usegmt=True),
                "Date": formatdate(NOW + 1000, usegmt=True),  # its clock, not ours
            },
            30.0,
        ),
        (429, {}, None),
        (503, {"Retry_After": "5"}, 5.0),
        (503, {"ratelimit_reset": "40"}, None),
    ],
)
async def test_how_long_to_wait_is_taken_from_the_headers(
    client: OutboundClient,
    listen: Listen,
    status: int,
    headers: dict[str, str],
    wait: float | None,
):
    async def script(exchange: Exchange) -> None:
        await exchange.answer(status, **headers)

    assert (await failure(client, await listen(script))).retry_after == wait


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"<html></html>",
        PAGE[:-1],
        PAGE[:40],
        PAGE + b"x",
        b'{"status":"success"}',
        b'{"status":"success","data":null}',
        b'{"status":"success","data":{"results":[]}}',
        b'{"status":"success","data":{"next":null}}',
        b'{"status":"success","data":{"next":null,"results":null}}',
        b'{"status":"success","data":{"next":null,"results":{}}}',
        b'{"status":"success","data":{"next":7,"results":[]}}',
        b'{"status":"success","data":{"next":"","results":[]}}',
        b'{"status":"error","data":{"next":null,"results":[]}}',
        b'{"data":{"next":null,"results":[]}}',
        b'{"status":"success","data":{"next":"\xff","results":[]}}',
        pytest.param(
            b'{"status":"success","data":{"next":' + DEEP + b',"results":[]}}',
            id="a cursor nested too deep",
        ),
        pytest.param(
            b'{"error":{"code":null},"more":' + DEEP + b"}", id="an error nested too deep"
        ),
    ],
)
async def test_an_answer_that_is_no_page_is_never_taken_for_an_empty_one(
    client: OutboundClient, listen: Listen, body: bytes
):
    async def script(exchange: Exchange) -> None:
        await exchange.answer(200, body)

    assert type(await failure(client, await listen(script))) is UpstreamPageError


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", PAGE),
        ("gzip", SQUEEZED[:-9]),
        ("gzip", SQUEEZED[:30]),
        ("gzip", b""),
        ("br", PAGE),
        ("deflate", PAGE),
        ("deflate", zlib.compress(PAGE)[:-9]),
        ("deflate", b""),
    ],
)
async def test_a_damaged_or_unknown_encoding_is_no_page(
    client: OutboundClient, listen: Listen, encoding: str, body: bytes
):
    async def script(exchange: Exchange) -> None:
        await exchange.answer(200, body, Content_Encoding=encoding)

    assert type(await failure(client, await listen(script))) is UpstreamPageError


async def test_a_compressed_page_takes_no_more_memory_than_its_bound(
    client: OutboundClient, listen: Listen
):
    bomb = gzip.compress(b" " * 50_000_000 + PAGE, 1)

    async def script(exchange: Exchange) -> None:
        await exchange.answer(200, bomb, Content_Encoding="gzip")

    peer = await listen(script)
    upstream = UpstreamClient(client, max_bytes=1_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(UpstreamPageError, match="larger than 1000000 bytes"):
            await upstream.fetch_page(credential(peer), "workday:1", PageQuery())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000
    await peer.until(lambda: peer.disconnections == 1)


async def test_of_a_page_without_end_no_more_than_its_bound_is_read(
    client: OutboundClient, listen: Listen
):
    async def script(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await exchange.send(b" " * 65536)

    peer = await listen(script)
    upstream = UpstreamClient(client, max_bytes=1_000_000)
    with pytest.raises(UpstreamPageError, match="larger than 1000000 bytes"):
        await upstream.fetch_page(credential(peer), "workday:1", PageQuery())
    await peer.until(lambda: peer.disconnections == 1)


@pytest.mark.parametrize("size", [len(PAGE), len(PAGE) - 1])
@pytest.mark.parametrize("compressed", [True, False])
async def test_the_bound_is_exact(
    client: OutboundClient, listen: Listen, size: int, compressed: bool
):
    async def script(exchange: Exchange) -> None:
        if compressed:
            await exchange.answer(200, SQUEEZED, Content_Encoding="gzip")
        else:
            await exchange.answer(200, PAGE)

    upstream = UpstreamClient(client, max_bytes=size)
    asked = upstream.fetch_page(credential(await listen(script)), "workday:1", PageQuery())
    if size == len(PAGE):
        assert (await asked).size == size
    else:
        with pytest.raises(UpstreamPageError):
            await asked


async def test_a_slow_drip_page_ends_at_the_deadline_of_the_whole_request(
    client: OutboundClient, listen: Listen
):
    async def script(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            await exchange.send(b" ")
            await asyncio.sleep(0.02)  # the drip itself

    peer = await listen(script)
    upstream = UpstreamClient(client, timeout=0.3)
    with pytest.raises(UpstreamUnavailableError, match=r"within 0\.3 s"):
        await upstream.fetch_page(credential(peer), "workday:1", PageQuery())
    await peer.until(lambda: peer.disconnections == 1)


@pytest.mark.parametrize("beginning", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{"])
async def test_a_connection_that_breaks_means_unavailable(
    client: OutboundClient, listen: Listen, beginning: bytes
):
    async def script(exchange: Exchange) -> None:
        await exchange.send(beginning)
        exchange.reset()

    assert type(await failure(client, await listen(script))) is UpstreamUnavailableError


async def test_nobody_listening_means_unavailable(client: OutboundClient, closed_port: int):
    where = UpstreamCredential(f"http://127.0.0.1:{closed_port}", KEY)
    with pytest.raises(UpstreamUnavailableError) as raised:
        await UpstreamClient(client).fetch_page(where, "workday:1", PageQuery())
    assert raised.value.status is None


async def test_a_refused_base_url_is_told_from_an_unavailable_one(listen: Listen):
    async def script(exchange: Exchange) -> None:
        await exchange.answer(200, PAGE)

    peer = await listen(script)
    async with open_client(AddressGuard()) as client:
        with pytest.raises(UpstreamTargetRefusedError, match="COURSEWIRE_ALLOWED_TARGETS"):
            await UpstreamClient(client).fetch_page(credential(peer), "workday:1", PageQuery())
    assert peer.connections == 0


@pytest.mark.parametrize(
    ("key", "upstream_id"), [("käse", "w:1"), ("a\nb", "w:1"), ("k", "w\r\n:1"), ("k", "wé")]
)
async def test_a_key_or_id_that_no_header_carries_is_refused_without_quoting_it(
    client: OutboundClient, key: str, upstream_id: str
):
    where = UpstreamCredential("http://127.0.0.1:1", key)
    with pytest.raises(UpstreamAuthError) as raised:
        await UpstreamClient(client).fetch_page(where, upstream_id, PageQuery())
    assert "käse" not in "".join(traceback.format_exception(raised.value, chain=False))
    assert raised.value.__suppress_context__


def test_the_key_is_left_out_when_a_credential_is_shown():
    from rich.pretty import pretty_repr

    where = UpstreamCredential("https://api.kombo.dev/v1", KEY)
    for shown in (repr(where), str(where), f"{where}", pretty_repr(where), repr([where])):
        assert KEY not in shown
        assert "api.kombo.dev" in shown
