"""A complete status line decides what an answer counts as, and errors are said plainly."""

from __future__ import annotations

import asyncio
import re

import pytest

from service.clients.transport import OutboundClient
from service.clients.upstream import Page, PageQuery, UpstreamClient
from service.clients.webhook_sender import Receiver
from service.domain.access.upstream_credential import UpstreamCredential
from service.domain.delivery.outcome import Outcome, OutcomeClass
from service.domain.errors import (
    UpstreamAuthError,
    UpstreamError,
    UpstreamRateLimitedError,
    UpstreamUnavailableError,
)
from tests.integration.clients.conftest import Exchange, Listen

JARGON = re.compile(r"message:|\^|Expected|Invalid|Data after|0x|b'|lax|llhttp|HPE", re.ASCII)

# Headers that break a rule, each a whole head behind a status line.
MALFORMED = {
    "a line without a colon": b"no colon\r\n\r\n",
    "a name with a blank": b"Bad Name: x\r\n\r\n",
    "no name": b": x\r\n\r\n",
    "a control character in a name": b"X\x01: y\r\n\r\n",
    "a null in a value": b"X: a\0b\r\n\r\n",
    "a length that is no number": b"Content-Length: x\r\n\r\n",
    "a negative length": b"Content-Length: -1\r\n\r\n",
    "an endless length": b"Content-Length: 99999999999999999999999999\r\n\r\n",
    "two lengths": b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "a length and chunks": b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "one field of 70 KB": b"X: " + b"a" * 70_000 + b"\r\n\r\n",
    "70 KB of fields": b"".join(b"X-%d: %s\r\n" % (n, b"a" * 700) for n in range(100)) + b"\r\n",
    "501 fields": b"".join(b"X-%d: y\r\n" % n for n in range(501)) + b"\r\n",
    "10,000 fields": b"X: y\r\n" * 10_000 + b"\r\n",
    "70 KB that do not end": b"X: " + b"a" * 70_000,
}
# Headers that some proxies and frameworks send, and that break none.
GENEROUS = {
    "one field of 9,000 bytes": b"X: " + b"a" * 9_000 + b"\r\n",
    "one field of 60 KB": b"X: " + b"a" * 60_000 + b"\r\n",
    "129 fields": b"".join(b"X-%d: y\r\n" % n for n in range(129)),
    "499 fields": b"".join(b"X-%d: y\r\n" % n for n in range(499)),
    "a folded field": b"X: a\r\n b\r\n",
    "bytes beyond ASCII": b"X: na\xefve \xff\r\n",
}


async def attempt(client: OutboundClient, url: str, seconds: float = 10.0) -> Outcome:
    return await Receiver(client).post(url, {"webhook-id": "evt_1"}, b"{}", timeout=seconds)


async def fetch(client: OutboundClient, url: str) -> Page:
    return await UpstreamClient(client).fetch_page(
        UpstreamCredential(url, "key"), "w:1", PageQuery()
    )


def sends(*parts: bytes):
    """A script that answers with these bytes, in segments of their own, and keeps open."""

    async def script(exchange: Exchange) -> None:
        for part in parts:
            await exchange.send(part)
            await asyncio.sleep(0)

    return script


@pytest.mark.parametrize("header", MALFORMED.values(), ids=MALFORMED)
async def test_a_malformed_header_does_not_overrule_the_status_of_a_push(
    client: OutboundClient, listen: Listen, header: bytes
):
    for status in (200, 204, 410, 429, 503):
        field = b"Retry-After: 77\r\n" if status in (429, 503) else b""
        peer = await listen(sends(b"HTTP/1.1 %d Said\r\n" % status, field + header))
        outcome = await attempt(client, peer.url)
        assert outcome.status == status
        if status < 300:
            assert (outcome.kind, outcome.error) == (OutcomeClass.DELIVERED, None)
        else:
            assert outcome.kind is OutcomeClass.STATUS
            assert outcome.error.startswith(f"HTTP {status}; its header ")
            assert not JARGON.search(outcome.error)
            assert outcome.retry_after == (77 if field else None)
        assert outcome.duration_ms < 5000
        await peer.until(lambda peer=peer: peer.disconnections == 1)


@pytest.mark.parametrize("header", GENEROUS.values(), ids=GENEROUS)
async def test_generous_headers_are_read(client: OutboundClient, listen: Listen, header: bytes):
    body = b'{"status":"success","data":{"results":[],"next":null}}'
    whole = b"HTTP/1.1 200 OK\r\n" + header + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    peer = await listen(sends(whole))
    for _ in range(2):
        outcome = await attempt(client, peer.url)
        assert (outcome.delivered, outcome.excerpt) == (True, body)
    assert (await fetch(client, peer.url)).results == []
    assert peer.connections == 1  # nothing was wrong with any of them


@pytest.mark.parametrize("behind", [b"x", b"\r\n", b"{}", b"HTTP/1.1 500 No\r\n\r\n", b"a" * 9000])
@pytest.mark.parametrize("status", [204, 200, 410, 500])
async def test_stray_bytes_behind_an_answer_change_nothing_of_it(
    client: OutboundClient, listen: Listen, status: int, behind: bytes
):
    length = b"" if status == 204 else b"Content-Length: 0\r\n"
    for close in (b"", b"Connection: close\r\n"):
        whole = b"HTTP/1.1 %d Said\r\n%s%s\r\n" % (status, length, close)
        peer = await listen(sends(whole + behind))
        for number in (1, 2):
            outcome = await attempt(client, peer.url)
            assert (outcome.status, outcome.delivered) == (status, status < 300)
            assert outcome.error == (None if status < 300 else f"HTTP {status}")
            assert peer.connections == number


@pytest.mark.parametrize("ending", ["close", "reset", "wait"])
@pytest.mark.parametrize("rest", [b"", b"X", b"X: y", b"X: y\r\n", b"Content-Length: 5\r\n"])
async def test_of_a_header_that_breaks_off_only_a_failing_status_counts(
    client: OutboundClient, listen: Listen, rest: bytes, ending: str
):
    async def script(exchange: Exchange) -> None:
        await exchange.send(f"HTTP/1.1 {exchange.target[1:]} Said\r\n".encode() + rest)
        for _ in range(5):  # turns in which it is taken in: a reset discards what is not
            await asyncio.sleep(0)
        if ending == "wait":
            await exchange.hung_up()
        else:
            getattr(exchange, ending)()

    peer = await listen(script)
    url = peer.url.removesuffix("hook")
    for status in (410, 429, 500, 302):
        outcome = await attempt(client, f"{url}{status}", 0.2)
        assert (outcome.kind, outcome.status) == (OutcomeClass.STATUS, status)
    for status in (200, 204):
        outcome = await attempt(client, f"{url}{status}", 0.2)
        kind = OutcomeClass.TIMEOUT if ending == "wait" else OutcomeClass.RESET
        assert (outcome.kind, outcome.status) == (kind, status)


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"SSH-2.0-OpenSSH_9.9\r\n", "does not begin with HTTP/1.1 and a status"),
        (b"<html>", "does not begin with HTTP/1.1 and a status"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "it is TLS, so the URL should begin with https://"),
        (b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80", "it is HTTP/2"),
        (b"HTTP/2 200\r\n\r\n", "it is HTTP/2"),
        (b"HTTP/1.1 42 What\r\n\r\n", "its status line is malformed"),
        (b"HTTP/1.1 OK\r\n\r\n", "its status line is malformed"),
        (b"HTTP/1.1 20000 OK\r\n\r\n", "its status line is malformed"),
        (b"HTTP/1.1 " + b"2" * 70_000, "its status line is malformed"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "its body is not divided into chunks as announced",
        ),
    ],
)
async def test_what_is_no_answer_is_named(
    client: OutboundClient, listen: Listen, sent: bytes, said: str
):
    peer = await listen(sends(sent))
    outcome = await attempt(client, peer.url)
    assert outcome.kind is OutcomeClass.PROTOCOL
    assert outcome.error.startswith("the response is not valid HTTP: ")
    assert said in outcome.error
    with pytest.raises(UpstreamUnavailableError, match=re.escape(said)):
        await fetch(client, peer.url)


@pytest.mark.parametrize("header", MALFORMED.values(), ids=MALFORMED)
async def test_a_malformed_header_does_not_overrule_the_status_of_a_page(
    client: OutboundClient, listen: Listen, header: bytes
):
    expected: dict[int, type[UpstreamError]] = {
        200: UpstreamUnavailableError,  # the page itself is behind the header
        401: UpstreamAuthError,
        429: UpstreamRateLimitedError,
    }
    for status, kind in expected.items():
        peer = await listen(
            sends(b"HTTP/1.1 %d Said\r\nRetry-After: 77\r\n" % status + header, b"{}")
        )
        with pytest.raises(kind) as failure:
            await fetch(client, peer.url)
        if status == 429:
            assert failure.value.retry_after == 77
        assert not JARGON.search(str(failure.value))
        if status == 200:
            assert "the response is not valid HTTP: its header" in str(failure.value)


@pytest.mark.parametrize(
    "reason", [b"", b" ", b" \xff\xfe", b" na\xc3\xafve", b" \x01\x7f", b" \t", b" a:b, c" * 999]
)
async def test_the_words_behind_a_status_do_not_matter(
    client: OutboundClient, listen: Listen, reason: bytes
):
    body = b'{"status":"success","data":{"results":[],"next":null}}'
    peer = await listen(
        sends(b"HTTP/1.1 200%s\r\nContent-Length: %d\r\n\r\n%s" % (reason, len(body), body))
    )
    for _ in range(2):
        assert (await fetch(client, peer.url)).results == []
        assert (await attempt(client, peer.url)).excerpt == body
    assert peer.connections == 1


@pytest.mark.parametrize(
    "location", ["https://login.e" + "x" * 300 + "/", "http://[", "\\\\", "http://a:b/", "%"]
)
async def test_a_redirection_that_leads_nowhere_is_still_one(
    client: OutboundClient, listen: Listen, location: str
):
    async def script(exchange: Exchange) -> None:
        await exchange.answer(302, Location=location)

    peer = await listen(script)
    assert (await attempt(client, peer.url)).error == "HTTP 302"
    with pytest.raises(UpstreamError) as failure:
        await fetch(client, peer.url)
    assert failure.value.status == 302


async def test_a_header_in_many_small_segments_is_read(client: OutboundClient, listen: Listen):
    whole = b"HTTP/1.1 103 Hints\r\nX: y\r\n\r\nHTTP/1.1 429 No\r\nRetry-After: 5\r\n\r\n"
    peer = await listen(sends(*(bytes([one]) for one in whole)))
    outcome = await attempt(client, peer.url, 0.3)
    assert (outcome.status, outcome.retry_after) == (429, 5)
