from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from service.domain.courses.fingerprint import Fingerprint, unpack
from service.domain.delivery.subscription import Outbox, Rendering
from service.domain.errors import (
    CoursesDifferError,
    EpochEndedError,
    LeaseLostError,
    StaleSubscriptionsError,
)
from service.domain.events.identifiers import encode, event_position
from service.domain.polling.page import PageDigests
from service.storage.delivery.outboxes import OutboxChange, Outboxes, Recorded
from service.storage.events.event_log import EventLog
from service.storage.observability.system_status import Overview
from service.storage.polling.catalogue import Batch, Catalogue, Change, NewEvent, Progress
from service.storage.polling.courses import Courses
from service.storage.redis import keys
from service.storage.redis.counters import Counters
from service.storage.redis.scripts import Script, run
from service.storage.scheduling.leases import Lease, Leases
from service.storage.scheduling.schedule import ClaimLimit, Schedule
from tests.integration.conftest import redis_now

FINGERPRINT = Fingerprint(
    deleted=False, raw=b"r" * 16, paths=b"p" * 95, remote_id="32", origin_id=None
)


@pytest.fixture
async def lease(redis):
    await redis.hset(keys.integration("int_a"), mapping={"epoch": "ep_1", "course_count": 0})
    await redis.zadd(keys.claimed("polls"), {"int_a": 9e15})
    lease = await Leases(redis).take("polls", "int_a", 9_000_000_000_000_000, 10_000)
    assert lease is not None
    return lease


def change(course_id: str = "c1", outboxes: tuple[Outbox, ...] = (), **kept) -> Change:
    return Change(
        course_id=course_id,
        fingerprint=msgspec.structs.replace(FINGERPRINT, **kept),
        live=1,
        event=NewEvent(
            type="course.created",
            facts=b"{}",
            body=b'{"id":"c1"}',
            outboxes=outboxes,
            order_key="k",
        ),
    )


async def commit(redis, lease: Lease, *changes: Change, **overrides):
    arguments = {
        "epoch": "ep_1",
        "poll_id": "poll_1",
        "subscriptions_version": 0,
        "progress": Progress(b"", b"p1"),
        "batch": Batch(changes=changes),
        "increments": Counter({"events_total|course.created": len(changes)}),
    }
    return await Catalogue(redis, Counters(redis)).commit(lease, **(arguments | overrides))


async def everything(redis) -> dict[bytes, bytes]:
    return {key: await redis.dump(key) async for key in redis.scan_iter("cw:*")}


async def test_a_change_moves_fingerprint_event_outbox_and_counters_together(redis, lease):
    committed = await commit(redis, lease, change(outboxes=(Outbox("sub_1", Rendering.FULL),)))

    assert (committed.events, committed.outboxes_woken) == (1, 1)
    (event,), _ = await EventLog(redis).read(None, 10)
    (packed,) = await Catalogue(redis, Counters(redis)).read("int_a", "ep_1", ["c1"])
    kept = unpack(packed)
    assert kept.sequence == event.sequence > 0
    assert event.id == f"evt_{kept.event}"
    assert event_position(event.id) == (event.position, event.id[-12:])
    assert event.previous_sequence is None
    (entry,) = await Outboxes(redis, Counters(redis)).read("sub_1", "-", 10)
    assert (entry.position, entry.order_key, entry.rendering) == (
        event.position,
        "k",
        Rendering.FULL,
    )
    counters, totals = await Counters(redis).read()
    assert counters == {"events_total|course.created": 1}
    assert totals == {"courses": 1, "pending": 1}
    assert await redis.zscore(keys.due("outboxes"), "sub_1") is not None


async def test_a_later_sequence_is_higher_even_if_the_clock_went_back(redis, lease):
    ahead = 9_000_000_000_000
    await commit(redis, lease, change(sequence=ahead))
    (event,), _ = await EventLog(redis).read(None, 10)
    assert (event.sequence, event.previous_sequence) == (ahead + 1, ahead)


async def test_an_inactive_outbox_collects_without_being_woken(redis, lease):
    committed = await commit(
        redis, lease, change(outboxes=(Outbox("sub_1", Rendering.THIN, active=False),))
    )
    assert committed.outboxes_woken == 0
    assert await redis.xlen(keys.outbox("sub_1")) == 1
    assert await redis.zcard(keys.due("outboxes")) == 0


@pytest.mark.parametrize(
    ("overrides", "error"),
    [
        ({"epoch": "ep_0"}, EpochEndedError),
        ({"subscriptions_version": 7}, StaleSubscriptionsError),
        ({"progress": Progress(b"other", b"p1")}, LeaseLostError),
    ],
)
async def test_a_refused_commit_writes_nothing(redis, lease, overrides, error):
    before = await everything(redis)
    with pytest.raises(error):
        await commit(redis, lease, change(), **overrides)
    assert await everything(redis) == before


async def test_a_commit_refused_because_of_courses_returns_them_as_they_are_known(redis, lease):
    await commit(redis, lease, change("live"), change("other"), change("gone", deleted=True))
    before = await everything(redis)
    expected = PageDigests([b"live", b"other", b"gone", b"new"], [b"r" * 16, b"x" * 16] * 2)
    batch = Batch(expected=expected, changes=[change("new")])

    with pytest.raises(CoursesDifferError) as refused:
        await commit(redis, lease, progress=Progress(b"p1", b"p2"), batch=batch)

    assert await everything(redis) == before
    known = refused.value.known
    assert list(known) == [1, 2, 3]
    assert (unpack(known[1]).raw, unpack(known[1]).deleted) == (b"r" * 16, False)
    assert unpack(known[2]).deleted
    assert known[3] is None


async def test_a_commit_with_courses_as_expected_is_carried_out(redis, lease):
    await commit(redis, lease, change("live"), change("gone", deleted=True))
    batch = Batch(expected=PageDigests([b"live"], [b"r" * 16]), changes=[change("new")])
    committed = await commit(redis, lease, progress=Progress(b"p1", b"p2"), batch=batch)
    assert (committed.events, committed.refused) == (1, [])


async def test_a_worker_whose_lease_passed_to_another_writes_nothing(redis, lease):
    await redis.set(lease.key, "another's token")
    before = await everything(redis)
    with pytest.raises(LeaseLostError):
        await commit(redis, lease, change())
    assert await everything(redis) == before


async def test_a_commit_sent_twice_is_carried_out_once(redis, lease):
    await commit(redis, lease, change())
    with pytest.raises(LeaseLostError):
        await commit(redis, lease, change())
    assert await redis.xlen(keys.EVENTS) == 1


async def test_quarantine_is_counted_once_and_ends_with_a_good_record(redis, lease):
    bad = Change(course_id="c1", problem="Expected `str`")
    await commit(redis, lease, bad)
    await commit(redis, lease, bad, progress=Progress(b"p1", b"p2"))
    assert await redis.hget(keys.integration("int_a"), "quarantined") == b"1"
    row = await Courses(redis, Catalogue(redis, Counters(redis))).get("int_a", "ep_1", "c1")
    assert (row.state, row.quarantine_reason) == ("quarantined", "Expected `str`")
    await commit(redis, lease, change(), progress=Progress(b"p2", b"p3"))
    assert await redis.hget(keys.integration("int_a"), "quarantined") == b"0"


class Written(msgspec.Struct):
    text: str


class Base32(Script[Written]):
    number: int
    length: int
    lua = "-- include _positions\nreturn written {text = base32(number, length)}"


async def test_scripts_write_numbers_as_the_domain_does(redis):
    for number in (0, 1, 31, 32, 1_795_424_001_123, 2**41 - 1, 2**50 - 1):
        written = await run(redis, Base32(number=number, length=10))
        assert written == Written(encode(number, 10))
    assert await run(redis, Base32(number=7, length=4)) == Written("0007")


async def test_only_what_is_due_is_claimed_and_only_once(redis):
    schedule = Schedule(redis)
    await schedule.wake("outboxes", "sub_1")
    await redis.zadd(keys.due("outboxes"), {"sub_later": 9e15})
    limits = [ClaimLimit("outboxes", "coursewire-deliver", 10, 5)]
    (claims,) = await schedule.claim(limits, 30_000)
    assert claims.ids == ["sub_1"]
    assert (await schedule.claim(limits, 30_000))[0].ids == []


async def test_a_claim_that_lapsed_is_due_again_and_its_token_is_stale(redis):
    schedule = Schedule(redis)
    await schedule.wake("outboxes", "sub_1")
    limits = [ClaimLimit("outboxes", "q", 10, 5)]
    (first,) = await schedule.claim(limits, 0)
    (second,) = await schedule.claim(limits, 30_000)
    assert second.ids == ["sub_1"]
    assert await Leases(redis).take("outboxes", "sub_1", first.token, 1000) is None
    assert await Leases(redis).take("outboxes", "sub_1", second.token, 1000) is not None
    assert await Leases(redis).take("outboxes", "sub_1", second.token, 1000) is None


async def test_what_is_claimed_again_and_again_and_never_begun_is_overdue_since_the_first_lapse(
    redis,
):
    schedule = Schedule(redis)
    limits = [ClaimLimit("outboxes", "q", 10, 5)]
    await schedule.wake("outboxes", "sub_1")
    (first,) = await schedule.claim(limits, 0)
    for _ in range(3):
        (claims,) = await schedule.claim(limits, 0)
        assert claims.ids == ["sub_1"]
    assert await redis.zrange(keys.overdue("outboxes"), 0, -1, withscores=True) == [
        (b"sub_1", first.token)
    ]
    assert (await Overview(redis).work("outboxes", first.token + 5)).oldest_due_at == first.token
    (last,) = await schedule.claim(limits, 30_000)
    assert await Leases(redis).take("outboxes", "sub_1", last.token, 1000) is not None
    assert await redis.exists(keys.overdue("outboxes")) == 0


async def test_a_long_queue_stops_claiming(redis):
    await Schedule(redis).wake("outboxes", "sub_1")
    await redis.rpush("rq:queue:q", *range(5))
    (claims,) = await Schedule(redis).claim([ClaimLimit("outboxes", "q", 10, 5)], 30_000)
    assert claims.ids == []


async def test_claims_know_how_many_workers_there_are(redis):
    await Schedule(redis).wake("outboxes", "sub_1")
    await redis.sadd(keys.rq_workers("q"), "rq:worker:a", "rq:worker:b")
    (claims,) = await Schedule(redis).claim([ClaimLimit("outboxes", "q", 10, 5)], 30_000)
    assert (claims.ids, claims.workers) == (["sub_1"], 2)


async def outbox_lease(redis) -> Lease:
    schedule = Schedule(redis)
    await schedule.wake("outboxes", "sub_1")
    (claims,) = await schedule.claim([ClaimLimit("outboxes", "q", 10, 5)], 30_000)
    lease = await Leases(redis).take("outboxes", "sub_1", claims.token, 10_000)
    assert lease is not None
    return lease


async def test_attempts_settle_retry_or_bury_an_entry(redis, lease):
    for number in range(3):
        await commit(
            redis,
            lease,
            change(f"c{number}", outboxes=(Outbox("sub_1", Rendering.FULL),)),
            progress=Progress(b"p%d" % number if number else b"", b"p%d" % (number + 1)),
        )
    outboxes = Outboxes(redis, Counters(redis))
    sender = await outbox_lease(redis)
    one, two, three = await outboxes.read("sub_1", "-", 10)
    before = await redis_now(redis)
    await outboxes.record(
        sender,
        [
            Recorded(entry=one, attempts=1, sent=1, result="S"),
            Recorded(entry=two, attempts=1, sent=2, result="R", wait_ms=60_000),
            Recorded(entry=three, attempts=1, sent=1, result="D", reason="gone"),
        ],
        Counter(),
        OutboxChange(resumed=b""),
    )
    assert [entry.position for entry in await outboxes.read("sub_1", "-", 10)] == [two.position]
    assert await outboxes.failing("sub_1", ["k", "other"]) == {"k"}
    (failing,), _ = await outboxes.retries("sub_1", None, 10)
    assert (failing.entry, failing.attempts, failing.sent) == (two, 1, 2)
    assert await outboxes.retries("sub_1", before, 10) == ([], failing.due_at)
    assert 60_000 <= failing.due_at - before <= 62_000
    (depth,) = await outboxes.depth_many(["sub_1"])
    assert (depth.pending, depth.dead) == (1, 1)
    _, totals = await Counters(redis).read()
    assert (totals["pending"], totals["dead"]) == (1, 1)
    assert await outboxes.release(sender, "later", start=f"({three.position}") == "idle"
    assert await redis.zscore(keys.due("outboxes"), "sub_1") == failing.due_at


async def test_a_record_sent_twice_counts_once(redis, lease):
    await commit(redis, lease, change(outboxes=(Outbox("sub_1", Rendering.FULL),)))
    outboxes = Outboxes(redis, Counters(redis))
    sender = await outbox_lease(redis)
    (entry,) = await outboxes.read("sub_1", "-", 10)
    increments = Counter({"attempts_total|status": 1})
    retry = Recorded(entry=entry, attempts=1, sent=1, result="R", wait_ms=1, record=b"{}")
    dead = Recorded(entry=entry, attempts=2, sent=2, result="D", reason="r", record=b"{}")
    for recorded in (retry, retry, dead, dead):
        await outboxes.record(sender, [recorded], increments, OutboxChange(resumed=b""))
    counters, totals = await Counters(redis).read()
    assert (totals["pending"], totals["dead"]) == (0, 1)
    assert counters["attempts_total|status"] == 2
    assert await redis.xlen(keys.attempts("sub_1")) == 2
    assert (await outboxes.depth_many(["sub_1"]))[0].dead == 1


@pytest.mark.parametrize(
    ("last", "waits", "released"),
    [
        (True, "nothing", True),
        (True, "an event", False),
        (True, "a replayed event", False),
        (True, "a replay", False),
        (False, "nothing", False),
    ],
)
async def test_the_last_recording_releases_an_empty_outbox(redis, lease, last, waits, released):
    await commit(redis, lease, change(outboxes=(Outbox("sub_1", Rendering.FULL),)))
    outboxes = Outboxes(redis, Counters(redis))
    sender = await outbox_lease(redis)
    (entry,) = await outboxes.read("sub_1", "-", 10)
    if waits == "an event":
        await redis.xadd(keys.outbox("sub_1"), {"k": "other", "r": "f"})
    elif waits == "a replayed event":
        await redis.xadd(keys.replayed("sub_1"), {"k": "other", "r": "f"})
    elif waits == "a replay":
        await redis.rpush(keys.replay_queue("sub_1"), "replay")
    delivered = Recorded(entry=entry, attempts=1, sent=1, result="S")
    outbox_change = OutboxChange(resumed=b"", last=last)
    standing = await outboxes.record(sender, [delivered], Counter(), outbox_change)
    assert standing.released is released
    assert await redis.exists(sender.key) == (not released)
    claimed = await redis.zscore(keys.claimed("outboxes"), "sub_1")
    assert (claimed is None) is released


async def test_an_outbox_with_unseen_entries_is_due_at_once(redis, lease):
    sender = await outbox_lease(redis)
    await commit(redis, lease, change(outboxes=(Outbox("sub_1", Rendering.FULL),)))
    assert await redis.zscore(keys.due("outboxes"), "sub_1") is None  # someone is at work on it
    await Outboxes(redis, Counters(redis)).release(sender, "later")
    assert await redis.zscore(keys.due("outboxes"), "sub_1") is not None
