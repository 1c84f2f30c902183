"""One attempt and every way it can end."""

from __future__ import annotations

import asyncio
import gc
import ssl
from collections import Counter
from email.utils import formatdate
from pathlib import Path
from types import FrameType

import pytest

from service.clients.address_guard import AddressGuard
from service.clients.transport import OutboundClient, open_client
from service.clients.webhook_sender import Receiver
from service.domain.delivery.outcome import Outcome, OutcomeClass
from tests.integration.clients.conftest import Exchange, Listen

SHORT = 0.3  # seconds, for attempts that must run into their limit
LONG = 10.0  # seconds, for attempts that must not

NOW = 1_795_424_000.0


async def attempt(
    client: OutboundClient, url: str, seconds: float = LONG, body: bytes = b"{}"
) -> Outcome:
    receiver = Receiver(client, clock=lambda: NOW)
    return await receiver.post(url, {"webhook-id": "evt_1"}, body, timeout=seconds)


async def test_a_2xx_answer_is_a_delivery(client: OutboundClient, listen: Listen):
    async def script(exchange: Exchange) -> None:
        await exchange.answer(202, b"thanks")

    peer = await listen(script)
    outcome = await attempt(client, peer.url, body=b'{"type":"course.updated"}')
    assert outcome.delivered
    assert (outcome.status, outcome.excerpt, outcome.error) == (202, b"thanks", None)
    assert outcome.connect_ms is not None
    assert outcome.first_byte_ms is not None
    assert 0 <= outcome.connect_ms <= outcome.first_byte_ms <= outcome.duration_ms
    [request] = peer.requests
    assert request.body == b'{"type":"course.updated"}'
    assert request.headers["webhook-id"] == "evt_1"
    assert request.headers["user-agent"].startswith("Coursewire")
    assert "accept-encoding" not in request.headers


async def test_the_lookup_of_a_name_is_timed_and_an_address_needs_none(
    listen: Listen,
):
    async def script(exchange: Exchange) -> None:
        await exchange.answer()

    peer = await listen(script)
    async with open_client(AddressGuard(["127.0.0.0/8", "localhost"])) as client:
        by_address = await attempt(client, peer.url)
        port = peer.url.rpartition(":")[2].partition("/")[0]
        by_name = await attempt(client, f"http://localhost:{port}/hook")
    assert (by_address.dns_ms, by_name.delivered) == (None, True)
    assert 0 <= by_name.dns_ms <= by_name.connect_ms


async def test_small_answers_of_any_status_leave_the_connection_for_the_next_attempt(
    client: OutboundClient, listen: Listen
):
    async def script(exchange: Exchange) -> None:
        await exchange.answer(500 if len(peer.requests) == 1 else 200, b"x" * 5000)

    peer = await listen(script)
    first = await attempt(client, peer.url)
    second = await attempt(client, peer.url)
    assert (first.status, second.status, second.connect_ms) == (500, 200, 0)
    assert peer.connections == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308, 304, 400, 401, 404, 410, 429, 500, 503])
async def test_any_other_status_is_a_failure_and_redirects_are_not_followed(
    client: OutboundClient, listen: Listen, status: int
):
    async def script(exchange: Exchange) -> None:
        await exchange.answer(status, Location="/elsewhere")

    peer = await listen(script)
    outcome = await attempt(client, peer.url)
    assert (outcome.kind, outcome.status) == (OutcomeClass.STATUS, status)
    assert [request.target for request in peer.requests] == ["/hook"]


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        ("120", 120.0),
        ("0", 0.0),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        (formatdate(NOW - 90, usegmt=True), 0.0),
        ("soon", None),
        ("-5", None),
        ("nan", None),
        ("", None),
    ],
)
async def test_retry_after_is_read_in_seconds_and_as_a_date(
    client: OutboundClient, listen: Listen, header: str, wait: float | None
):
    async def script(exchange: Exchange) -> None:
        await exchange.answer(503, Retry_After=header)

    peer = await listen(script)
    assert (await attempt(client, peer.url)).retry_after == wait


async def test_the_excerpt_ends_at_a_kibibyte(client: OutboundClient, listen: Listen):
    async def script(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 400 Bad\r\nContent-Length: 3000\r\n\r\n")
        for letter in (b"a", b"b", b"c"):
            await exchange.send(letter * 1000)

    peer = await listen(script)
    outcome = await attempt(client, peer.url)
    assert outcome.excerpt == b"a" * 1000 + b"b" * 24


async def test_of_an_endless_answer_only_the_beginning_is_read(
    client: OutboundClient, listen: Listen
):
    async def script(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await exchange.send(b"x" * 65536)

    peer = await listen(script)
    outcome = await attempt(client, peer.url)
    assert outcome.delivered
    assert len(outcome.excerpt) == 1024
    await peer.until(lambda: peer.disconnections == 1)


async def test_an_answer_that_never_comes_ends_at_the_timeout(
    client: OutboundClient, listen: Listen
):
    async def script(exchange: Exchange) -> None:
        await exchange.test_over.wait()

    peer = await listen(script)
    outcome = await attempt(client, peer.url, SHORT)
    assert (outcome.kind, outcome.status) == (OutcomeClass.TIMEOUT, None)
    assert outcome.error == "no response within 0.3 s"
    assert 300 <= outcome.duration_ms < 5000
    assert outcome.connect_ms is not None


async def test_a_slow_drip_answer_ends_at_the_timeout_of_the_whole_attempt(
    client: OutboundClient, listen: Listen
):
    async def script(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            await exchange.send(b"x")
            await asyncio.sleep(0.02)  # the drip itself

    peer = await listen(script)
    outcome = await attempt(client, peer.url, SHORT)
    assert (outcome.kind, outcome.status) == (OutcomeClass.TIMEOUT, 200)
    assert outcome.error == "the response did not end within 0.3 s"
    assert outcome.excerpt.startswith(b"xx")
    await peer.until(lambda: peer.disconnections == 1)


async def test_a_slow_drip_of_header_lines_ends_at_the_timeout(
    client: OutboundClient, listen: Listen
):
    async def script(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\n")
        while True:
            await exchange.send(b"X: y\r\n")
            await asyncio.sleep(0.02)  # the drip itself

    peer = await listen(script)
    outcome = await attempt(client, peer.url, SHORT)
    assert outcome.kind is OutcomeClass.TIMEOUT


async def test_a_failing_status_counts_even_if_its_body_never_ends(
    client: OutboundClient, listen: Listen
):
    async def script(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 410 Gone\r\nContent-Length: 9\r\n\r\nno")
        await exchange.test_over.wait()

    peer = await listen(script)
    outcome = await attempt(client, peer.url, SHORT)
    assert (outcome.kind, outcome.status) == (OutcomeClass.STATUS, 410)
    assert outcome.error == "HTTP 410; the response did not end within 0.3 s"


async def test_a_peer_that_stops_reading_ends_at_the_timeout(
    client: OutboundClient, listen: Listen
):
    peer = await listen(None)
    outcome = await attempt(client, peer.url, SHORT, body=b"x" * 1_000_000)
    assert outcome.kind is OutcomeClass.TIMEOUT


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"HTTP/1.1 20",
        b"HTTP/1.1 200 OK\r\nContent-",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    ],
)
@pytest.mark.parametrize("ending", ["close", "reset"])
async def test_a_connection_that_breaks_before_the_answer_is_complete_is_a_reset(
    client: OutboundClient, listen: Listen, beginning: bytes, ending: str
):
    async def script(exchange: Exchange) -> None:
        await exchange.send(beginning)
        getattr(exchange, ending)()

    peer = await listen(script)
    outcome = await attempt(client, peer.url)
    assert outcome.kind is OutcomeClass.RESET
    assert outcome.connect_ms is not None


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"<html>hi</html>\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 42 What\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
    ],
)
async def test_an_answer_that_is_not_http_is_a_protocol_failure(
    client: OutboundClient, listen: Listen, answer: bytes
):
    async def script(exchange: Exchange) -> None:
        await exchange.send(answer)
        await exchange.test_over.wait()

    peer = await listen(script)
    outcome = await attempt(client, peer.url)
    assert outcome.kind is OutcomeClass.PROTOCOL
    assert "127.0.0.1" not in (outcome.error or "")  # the URL may carry a secret


@pytest.mark.parametrize("beginning", [b"", b"5\r\nabcde\r\n", b"5\r\nabc"])
@pytest.mark.parametrize("rest", [b"zzzzzz\r\n\r\n", b"5\r\nabcdeXX5\r\n", b"-1\r\n\r\n"])
async def test_a_body_that_turns_out_not_to_be_http_ends_the_attempt_at_once(
    client: OutboundClient, listen: Listen, beginning: bytes, rest: bytes
):
    head_was_read = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + beginning)
        await head_was_read.wait()
        await exchange.send(rest)
        await exchange.send(b"not a chunk\r\n")
        await exchange.hung_up()

    peer = await listen(script)
    sending = asyncio.create_task(attempt(client, peer.url))
    await peer.until(lambda: len(peer.requests) == 1)
    for _ in range(50):  # turns of the loop, in which the beginning arrives
        await asyncio.sleep(0.001)
    head_was_read.set()
    outcome = await sending
    assert (outcome.kind, outcome.status) == (OutcomeClass.PROTOCOL, 200)
    assert outcome.error.startswith("the response is not valid HTTP")
    assert outcome.duration_ms < LONG * 1000


async def test_nobody_listening_is_a_connect_failure(client: OutboundClient, closed_port: int):
    outcome = await attempt(client, f"http://127.0.0.1:{closed_port}/")
    assert (outcome.kind, outcome.connect_ms) == (OutcomeClass.CONNECT, None)
    assert outcome.error == "no connection: Connection refused"


async def test_a_name_that_does_not_resolve_is_a_dns_failure(client: OutboundClient):
    outcome = await attempt(client, "http://nobody.invalid/")
    assert outcome.kind is OutcomeClass.DNS


async def test_an_untrusted_certificate_is_a_tls_failure(
    client: OutboundClient, listen: Listen, server_tls: ssl.SSLContext
):
    async def script(exchange: Exchange) -> None:
        await exchange.answer()

    peer = await listen(script, tls=server_tls)
    outcome = await attempt(client, peer.url)
    assert outcome.kind is OutcomeClass.TLS
    assert "self-signed certificate" in (outcome.error or "")
    assert peer.requests == []


async def test_a_trusted_certificate_is_accepted(
    listen: Listen, server_tls: ssl.SSLContext, certificate: Path
):
    async def script(exchange: Exchange) -> None:
        await exchange.answer()

    peer = await listen(script, tls=server_tls)
    trusting = ssl.create_default_context(cafile=certificate)
    async with open_client(AddressGuard(["127.0.0.1"]), tls=trusting) as client:
        assert (await attempt(client, peer.url)).delivered


async def test_a_peer_that_speaks_no_tls_is_a_tls_failure(client: OutboundClient, listen: Listen):
    async def not_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.close()

    for behaviour in (not_tls, hang_up):
        async with await asyncio.start_server(behaviour, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            outcome = await attempt(client, f"https://127.0.0.1:{port}/")
            assert outcome.kind is OutcomeClass.TLS, behaviour


@pytest.fixture
def garbage():
    """Counts the frames that only the garbage collector would free."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)

    def count() -> Counter[str]:
        gc.collect()
        frames = [one for one in gc.garbage if isinstance(one, FrameType)]
        return Counter(frame.f_code.co_qualname for frame in frames)

    try:
        yield count
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def test_a_failed_connection_leaves_no_frames_that_refer_to_the_body(
    client: OutboundClient, closed_port: int, garbage
):
    outcome = await attempt(client, f"http://127.0.0.1:{closed_port}/")
    assert outcome.kind is OutcomeClass.CONNECT
    assert garbage() == Counter()


async def test_a_refused_address_is_told_from_a_timeout(listen: Listen):
    async def script(exchange: Exchange) -> None:
        await exchange.answer()

    peer = await listen(script)
    async with open_client(AddressGuard()) as client:
        outcome = await attempt(client, peer.url)
    assert outcome.kind is OutcomeClass.REFUSED_TARGET
    assert "add 127.0.0.0/8 to COURSEWIRE_ALLOWED_TARGETS" in (outcome.error or "")
    assert peer.connections == 0


@pytest.mark.parametrize(
    "url", ["", "nonsense", "ftp://127.0.0.1/", "http://", "http://[::1/", "http://2130706433/"]
)
async def test_a_url_that_cannot_be_requested_is_an_outcome_too(client: OutboundClient, url: str):
    outcome = await attempt(client, url)
    assert outcome.kind in (OutcomeClass.REFUSED_TARGET, OutcomeClass.PROTOCOL)


@pytest.mark.parametrize("value", ["two\nlines", "two\r\nlines", "naïve", "\0"])
async def test_a_header_http_cannot_carry_is_an_outcome_that_does_not_quote_it(
    client: OutboundClient, listen: Listen, value: str
):
    async def script(exchange: Exchange) -> None:
        await exchange.answer()

    peer = await listen(script)
    outcome = await Receiver(client).post(peer.url, {"x-secret": value}, b"", timeout=LONG)
    assert outcome.kind is OutcomeClass.PROTOCOL
    assert outcome.error == "the request cannot be written as HTTP"
    assert peer.requests == []


async def test_an_answer_before_the_request_was_read_is_taken(
    client: OutboundClient, listen: Listen
):
    async def eager(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(eager, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        outcome = await attempt(client, f"http://127.0.0.1:{port}/", body=b"x" * 1_000_000)
    assert (outcome.kind, outcome.status) == (OutcomeClass.STATUS, 413)


async def test_cancelling_an_attempt_ends_it_and_its_connection(
    client: OutboundClient, listen: Listen
):
    async def script(exchange: Exchange) -> None:
        await exchange.hung_up()

    peer = await listen(script)
    task = asyncio.create_task(attempt(client, peer.url))
    await peer.until(lambda: len(peer.requests) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await peer.until(lambda: peer.disconnections == 1)
