"""Hostile peers do what they are meant to do, and nothing that no client could notice."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import msgspec
import pytest

from tests.chaos import answers, mangling, receivers
from tests.chaos.history import History
from tests.chaos.mangling import ForeignIds, Reply
from tests.chaos.receivers import Receivers
from tests.chaos.wire import Server, Stray, Wire, accepts, status_said

REQUEST = b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n"
COURSE = {
    "id": "c1",
    "remote_id": "1",
    "remote_deleted_at": None,
    "remote_data": None,
    "provider": {"id": "p1", "name": "P"},
    "revisions": [{"id": "r1", "title": "Title, ünïcode"}],
}


def page(*records: object) -> Reply:
    body = json.dumps({"status": "success", "data": {"next": None, "results": records}})
    return Reply(status=200, fields=((b"date", b"now"),), body=body.encode())


# --- bytes nobody asked for ---------------------------------------------------------------------


async def talk(
    serve: Callable[[Wire], Awaitable[None]],
    client: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> None:
    """Has one client talk to a server."""
    server = Server(serve)
    server.start()
    port = int(server.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        await client(reader, writer)
    finally:
        writer.close()
        await server.close()


async def test_a_request_after_unasked_bytes_was_written_by_one_who_could_know():
    seen: list[Stray] = []

    async def serve(wire: Wire) -> None:
        assert await wire.request() is not None
        assert await wire.send_followed(answers.FAILED, answers.NO_CONTENT, 0.01)
        assert await wire.request() is not None
        seen.append(wire.stray)
        await wire.send(b"!")

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(REQUEST)
        await reader.readexactly(len(answers.FAILED + answers.NO_CONTENT))
        await asyncio.sleep(0.1)  # longer than is left in doubt
        writer.write(REQUEST)
        assert await reader.readexactly(1) == b"!"

    await talk(serve, client)
    assert seen == [Stray.KNOWN]


@pytest.mark.parametrize(
    ("greeting", "known"),
    [
        pytest.param(answers.FAILED, Stray.IN_DOUBT, id="a refusal may be read as the answer"),
        pytest.param(answers.NO_CONTENT, Stray.KNOWN, id="nothing else may"),
    ],
)
async def test_a_late_first_request_after_a_greeting(greeting, known):
    seen: list[Stray] = []

    async def serve(wire: Wire) -> None:
        assert await wire.send_unasked(greeting)
        assert await wire.request() is not None
        seen.append(wire.stray)
        await wire.send(b"!")

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(greeting))
        await asyncio.sleep(0.1)  # longer than is left in doubt
        writer.write(REQUEST)
        assert await reader.readexactly(1) == b"!"

    await talk(serve, client)
    assert seen == [known]


async def test_a_request_at_the_same_time_as_unasked_bytes_is_in_doubt():
    seen: list[Stray] = []

    async def serve(wire: Wire) -> None:
        assert await wire.send_unasked(answers.NO_CONTENT)
        assert await wire.request() is not None
        seen.append(wire.stray)
        await wire.send(b"!")

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(answers.NO_CONTENT))
        writer.write(REQUEST)
        assert await reader.readexactly(1) == b"!"

    await talk(serve, client)
    assert seen == [Stray.IN_DOUBT]


async def test_nothing_is_sent_unasked_while_a_request_waits():
    sent: list[bool] = []

    async def serve(wire: Wire) -> None:
        assert await wire.request() is not None
        sent.append(await wire.send_unasked(answers.NO_CONTENT, 5))
        assert await wire.request() is not None
        await wire.send(b"!")

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(REQUEST + REQUEST)
        assert await reader.readexactly(1) == b"!"

    await talk(serve, client)
    assert sent == [False]


async def test_a_closing_receiver_records_a_push_that_crosses_its_unrequested_bytes(monkeypatch):
    script = answers.Script(
        answer=answers.FAILED, stray=answers.NO_CONTENT, after=0.01, then="close"
    )
    monkeypatch.setattr(receivers, "HOSTILE", [("A", lambda _chance: script)])
    history = History()
    peers = Receivers(["a"], 0, receivers.MIX, history)
    peers.all[0].spoil(0, 1)
    peers.start()
    facts = {"event_id": "evt_1", "upstream_id": "u", "course_id": "c", "sequence": 1}
    body = json.dumps({"type": "t", "data": {**facts, "previous_sequence": None}}).encode()
    push = b"POST /a HTTP/1.1\r\nwebhook-id: evt_1\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", urlsplit(peers.url(peers.all[0])).port
    )
    writer.write(push)
    await reader.readexactly(len(answers.FAILED + answers.NO_CONTENT))
    writer.write(push)  # at once, as if it had been on its way
    await reader.read()
    writer.close()
    await peers.close()
    assert [one.acknowledged_at is not None for one in history.receipts] == [False, True]
    assert history.crossed == 1


# --- what an answer says ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (answers.NO_CONTENT, 204),
        (answers.FAILED + answers.NO_CONTENT, 500),
        (b"HTTP/1.1 204\r\nno field", 204),
        (b"HTTP/1.1 204", None),
        (b"HTTP/1.1 2000 OK\r\n", None),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + answers.OK, 200),
        (b"HTTP/1.1 100 Continue\r\n", None),
        (b"", None),
    ],
)
def test_the_first_complete_status_line_that_is_final_counts(said, status):
    assert status_said(said) == status


def test_an_odd_success_says_success():
    for seed in range(200):
        assert accepts(answers.odd_success(random.Random(seed)).answer), seed


@pytest.mark.parametrize("make", [make for _, make in answers.HOSTILE])
def test_no_receiver_says_that_it_is_gone(make):
    """The subscription would be disabled."""
    for seed in range(200):
        script = make(random.Random(seed))
        assert 410 not in map(status_said, (script.answer, script.stray, script.greeting))


# --- what is made of pages ----------------------------------------------------------------------


@pytest.mark.parametrize("mangle", [mangling.bad_token, mangling.bad_record])
def test_a_bad_token_is_no_json(mangle):
    for seed in range(200):
        mangled = mangle(random.Random(seed), page(COURSE, COURSE))
        assert mangled is not None
        with pytest.raises((ValueError, RecursionError)):
            msgspec.json.decode(mangled.body)  # unlike json's, it takes no lone surrogates


def test_a_nonsensical_mark_is_put_on_a_live_record_alone():
    gone = {**COURSE, "id": "c2", "remote_deleted_at": "2024-01-01T00:00:00.000Z"}
    for seed in range(100):
        mangled = mangling.nonsense_mark(random.Random(seed), page(gone, COURSE))
        assert mangled is not None
        first, second = json.loads(mangled.body)["data"]["results"]
        assert first == gone
        assert second["remote_deleted_at"] is not None
        assert {**second, "remote_deleted_at": None} == COURSE


def test_an_answer_that_is_to_be_borne_has_an_odd_head_and_says_success():
    for seed in range(50):
        odd = mangling.odd_page(random.Random(seed), page(COURSE))
        assert odd.status == 200
        assert len(odd.written()) > 9_000 or len(odd.fields) > 129


def test_foreign_ids_keep_their_length_and_lead_back():
    ids = ForeignIds()
    real = [f"{number:024d}".replace("0", "x") for number in range(300)]
    foreign = json.loads(ids.give(json.dumps(real).encode()))
    changed = {one: other for one, other in zip(real, foreign, strict=True) if one != other}
    assert 10 < len(changed) < 60
    assert {character for other in changed.values() for character in other} > set(",/ .")
    for one, other in zip(real, foreign, strict=True):
        assert ids.of(one) == other
        assert ids.real(other) == one
        assert len(one.encode()) == len(other.encode())
    assert ids.real_list(",".join(one for one in foreign if "," not in one)) == ",".join(
        one for one, other in zip(real, foreign, strict=True) if "," not in other
    )
