"""Answers broken at random on a real connection: only outcomes and our own errors come of them."""

from __future__ import annotations

import gzip
import random
import re

import pytest

from service.clients.transport import OutboundClient
from service.clients.upstream import Page, PageQuery, UpstreamClient
from service.clients.webhook_sender import Receiver
from service.domain.access.upstream_credential import UpstreamCredential
from service.domain.delivery.outcome import Outcome
from service.domain.errors import UpstreamError
from tests.integration.clients.conftest import Exchange, Listen

PAGE = b'{"status":"success","data":{"results":[{"id":"a"},{"id":"b"}],"next":"cur"}}'
SQUEEZED = gzip.compress(PAGE, mtime=0)
ERROR = b'{"status":"error","error":{"code":"PLATFORM.UNKNOWN_ERROR","message":"m"}}'


def said(status: bytes, body: bytes, *fields: bytes) -> bytes:
    head = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *fields]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


ANSWERS = [
    said(b"200 OK", PAGE, b"Content-Type: application/json", b"ratelimit-limit: 300"),
    said(b"200 OK", SQUEEZED, b"Content-Encoding: gzip", b"Date: Mon, 23 Nov 2026 08:00:00 GMT"),
    said(b"500 No", ERROR, b"Retry-After: 5"),
    said(b"429 Slow down", b"", b"Retry-After: Mon, 23 Nov 2026 08:00:00 GMT"),
    said(b"302 Found", b"", b"Location: https://login.example/?a=b"),
    said(b"410 Gone", b"<html>"),
    said(b"204 No Content", b""),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" + said(b"202 Accepted", b"thanks"),
]
SPITEFUL = [
    b"\r\n", b"\n", b"\r", b"\0", b"\xff", b":", b" ", b"HTTP/1.1 200 OK\r\n", b"-1", b"0x5",
    b"99999999999999999999", b"chunked", b"gzip", b"br", b"identity, gzip", b"\xef\xbb\xbf", b"{",
    b'"', b"NaN", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"x" * 9_000,
]  # fmt: skip
AMOUNTS = [
    pytest.param(300, id="short"),
    pytest.param(20_000, id="long", marks=[pytest.mark.nightly, pytest.mark.timeout(1_200)]),
]


class Mutations:
    """Real answers, broken in up to four places, by a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def draw(self) -> bytes:
        """The next one."""
        choose = self._random
        answer = choose.choice(ANSWERS)
        for _ in range(choose.randint(0, 4)):
            at = choose.randrange(len(answer) + 1)
            by = choose.choice([*SPITEFUL, choose.randbytes(choose.randint(0, 3))])
            answer = answer[:at] + by + answer[at + choose.choice([0, 1, 2, 20]) :]
        return answer


@pytest.fixture
async def peer(listen: Listen):
    """Answers each request with the next of its `answers`, and hangs up."""

    async def script(exchange: Exchange) -> None:
        await exchange.send(peer.answer)
        exchange.close()

    peer = await listen(script)
    peer.answer = b""
    return peer


@pytest.mark.parametrize("amount", AMOUNTS)
async def test_a_page_comes_or_one_of_our_errors(client: OutboundClient, peer, amount: int):
    upstream = UpstreamClient(client, timeout=20)
    credential = UpstreamCredential(f"http://127.0.0.1:{peer.port}/v1", "key-of-the-upstream")
    mutations = Mutations(amount)
    for _ in range(amount):
        peer.answer = mutations.draw()
        try:
            got = await upstream.fetch_page(credential, "workday:1", PageQuery())
        except UpstreamError as error:
            assert str(error).isprintable(), peer.answer  # noqa: PT017 - whatever the error is
        else:
            assert isinstance(got, Page), peer.answer
            assert b"200" in peer.answer


@pytest.mark.parametrize("amount", AMOUNTS)
async def test_an_outcome_comes_whatever_a_receiver_answers(
    client: OutboundClient, peer, amount: int
):
    receiver = Receiver(client)
    mutations = Mutations(amount + 1)
    for _ in range(amount):
        peer.answer = mutations.draw()
        outcome = await receiver.post(peer.url, {"webhook-id": "evt_1"}, b"{}", timeout=20)
        assert isinstance(outcome, Outcome), peer.answer
        if outcome.delivered:
            assert re.search(rb"HTTP/1\.[01] +2[0-9][0-9]", peer.answer), peer.answer
