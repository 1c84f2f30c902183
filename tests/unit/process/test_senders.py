"""What the benchmark of senders publishes, and what it concludes from receipts."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Sequence

import pytest

from tests.bench.senders import stores
from tests.bench.senders.peers import Outpost, Svix
from tests.bench.senders.publisher import Load, publish
from tests.bench.senders.scenes import Sizes, scenes
from tests.bench.senders.traffic import Mark, Publication, Receipt, Records, batches, mark_in
from tests.bench.senders.verdict import Verdict, judge, quantile

SENT = [(0, 1), (1, 1), (0, 2), (1, 2)]


def receipt(at: float, mark: Mark, name: str = "", **more: object) -> Receipt:
    given = {"host": 0, "accepted": True, "detected": 10.0, **more}
    return Receipt(at=at, mark=mark, id=name or str(mark), **given)


def judged(*receipts: Receipt, hosts: Sequence[int] = (0,), published=()) -> Verdict:
    return judge(receipts, {one.mark: one for one in published}, SENT, hosts)


def everything(begin: float = 11.0, **more: object) -> list[Receipt]:
    return [receipt(begin + number, mark, **more) for number, mark in enumerate(SENT)]


def test_what_arrives_once_and_in_order_is_faultless():
    found = judged(*everything())
    assert (found.expected, found.lost, found.duplicates, found.disordered) == (4, 0, 0, 0)
    assert (found.p50_ms, found.p99_ms, found.max_ms) == (2000.0, 4000.0, 4000.0)
    assert found.rate == pytest.approx(4 / 4)
    assert found.silence == 1.0


def test_what_never_arrives_at_one_of_the_hosts_is_lost():
    found = judged(*everything(), *everything(host=1)[:3], hosts=(0, 1))
    assert (found.expected, found.lost, found.lost_acknowledged) == (8, 1, 1)


def test_what_was_refused_has_not_arrived():
    found = judged(*everything()[:3], receipt(15, SENT[3], accepted=False))
    assert (found.lost, found.attempts, found.refused) == (1, 4, 1)


def test_a_lost_event_counts_as_acknowledged_only_with_a_success():
    published = [Publication(mark, 9, 10, 202 if mark[0] else 409, 2) for mark in SENT]
    found = judged(*everything()[2:], published=published)
    assert (found.lost, found.lost_acknowledged) == (2, 1)


def test_what_comes_again_under_its_id_is_a_duplicate_and_under_another_is_renamed():
    again = receipt(16, SENT[0]), receipt(17, SENT[1], "another"), receipt(18, SENT[1], "another")
    found = judged(*everything(), *again)
    assert (found.duplicates, found.renamed, found.lost) == (2, 1, 0)
    assert found.last == 14.0


def test_what_was_never_sent_is_invented():
    assert judged(*everything(), receipt(16, (7, 7))).invented == 1


def test_an_event_after_a_later_one_of_its_object_is_out_of_order():
    first, other, second, last = everything()
    swapped = [receipt(9, second.mark), first, other, last]
    assert judged(*swapped).disordered == 1
    # Objects have no order among each other, and hosts neither.
    assert judged(first, second, receipt(20, other.mark), receipt(21, last.mark)).disordered == 0
    assert judged(*everything(), *everything(5, host=1), hosts=(0, 1)).disordered == 0


def test_a_retry_of_an_earlier_event_is_out_of_order_but_a_duplicate_is_not():
    refused = receipt(10, SENT[0], accepted=False)
    assert judged(refused, *everything()[1:], receipt(20, SENT[0])).disordered == 1
    assert judged(*everything(), receipt(20, SENT[0])).disordered == 0


def test_latency_begins_with_the_acceptance_by_the_publisher_where_there_is_one():
    published = [Publication(mark, 9.0, 10.5, 202, 1) for mark in SENT]
    found = judged(*everything(detected=0.0), published=published)
    assert (found.p50_ms, found.first) == (1500.0, 10.5)


def test_nothing_at_all_has_no_latency():
    found = judged()
    assert (found.lost, found.p50_ms, found.rate, found.silence) == (4, None, 0.0, 0.0)


def test_quantiles_are_values_that_occurred():
    assert quantile([], 0.5) is None
    assert quantile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0
    assert quantile([float(one) for one in range(1, 101)], 0.99) == 99.0


def test_marks_are_read_from_what_every_system_sends():
    records = Records()
    mark = (1_234, 56)
    assert mark_in(records.payload(mark)) == mark_in(records.record(mark)) == mark
    assert len(records.payload(mark)) == pytest.approx(len(records.record(mark)) + 500, abs=100)


def test_the_events_of_an_object_have_rising_numbers():
    found = batches(5, 2)
    assert found == [[(0, 1), (1, 1)], [(0, 2), (1, 2)], [(0, 3)]]


def test_scenes_follow_the_sizes():
    found = scenes(Sizes(events=2_000, destinations=20, some=4))
    assert {name: (len(one.marks), one.destinations) for name, one in found.items()} == {
        "one": (2_000, 1),
        "many": (100, 20),
        "bursts": (80, 4),
        "dead": (5, 4),
        "order": (5, 1),
        "kill": (2_000, 1),
    }
    # A scene that judges order has several events of an object.
    assert all(
        len({mark[0] for mark in found[name].marks}) < len(found[name].marks)
        for name in ("order", "kill")
    )


def test_a_peer_that_cannot_take_part_says_why(monkeypatch, tmp_path):
    monkeypatch.delenv("OUTPOST_BIN", raising=False)
    monkeypatch.setenv("SVIX_BIN", str(tmp_path / "none"))
    monkeypatch.setattr(stores, "postgres_programs", lambda: None)
    monkeypatch.setattr(stores, "rabbit_server", lambda: None)
    assert Outpost.lacking() == [
        "OUTPOST_BIN is not set",
        "PostgreSQL (initdb, postgres) is not installed",
        "RabbitMQ (rabbitmq-server, epmd) is not installed",
    ]
    assert Svix.lacking() == [
        f"SVIX_BIN names no program: {tmp_path / 'none'}",
        "PostgreSQL (initdb, postgres) is not installed",
    ]


async def test_an_event_is_published_again_under_its_id_until_it_is_accepted():
    answers = [b"", b"409 Conflict", b"500 Oh", b"202 Accepted"]
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.split(b"content-length: ")[1])
            heard.append(await reader.readexactly(length))
            answer = answers[len(heard) - 1]
            if not answer:  # as one that is killed
                writer.close()
                return
            writer.write(b"HTTP/1.1 %b\r\ncontent-length: 0\r\n\r\n" % answer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    load = Load(
        targets=[f"127.0.0.1:{port}"],
        path="/publish",
        envelope=('{"id":"{id}","payload":', "}"),
        run="run",
        batches=[[(3, 1)]],
        into="",
    )
    async with server:
        (published,) = await publish(load, Records())
    assert (published.mark, published.status, published.tries) == ((3, 1), 202, 4)
    assert len(set(heard)) == 1
    assert json.loads(heard[0])["id"] == "run-3-1"


async def test_a_sender_that_stays_away_or_refuses_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    load = Load([f"127.0.0.1:{port}"], "/", ("", ""), "run", [[(0, 1)]], "", patience=0.01)
    with pytest.raises(ExceptionGroup) as raised:
        await publish(load, Records())
    assert raised.group_contains(AssertionError, match="does not accept an event")
