"""What deliveries are listed by is kept by the same scripts that move them on."""

from __future__ import annotations

from functools import partial

from service.domain.events.identifiers import sort_key
from service.storage.delivery import outboxes as module
from service.storage.delivery.deliveries import Wanted
from service.storage.delivery.outbox_scripts import RecordAttempts
from service.storage.redis import keys
from tests.integration.delivery.test_replays import ask, make_replayed_retries_due


async def members(redis, key: str) -> list[str]:
    return [one.decode() for one in await redis.zrange(key, 0, -1)]


async def check(harness) -> None:
    """Every sorted set holds what the queues and the records hold, and nothing more."""
    redis, name = harness.services.redis.admin, harness.id
    records = await redis.xrange(keys.attempts(name))
    assert await members(redis, keys.attempts_order(name)) == sorted(
        fields[b"o"].decode() + record_id.decode() for record_id, fields in records
    )
    entries = await redis.xrange(keys.replayed(name))
    assert await members(redis, keys.replayed_order(name)) == sorted(
        sort_key(fields[b"p"].decode()) + place.decode() for place, fields in entries
    )
    for queue, position in ((keys.live_queue(name), 0), (keys.replayed_queue(name), 4)):
        heads = [one.decode().split()[position] for one in await redis.hvals(queue.failing)]
        assert await members(redis, queue.retrying) == sorted(map(sort_key, heads))
    listed = await redis.hkeys(keys.outbox_dead_facts(name))
    assert await members(redis, keys.outbox_dead(name)) == sorted(one.decode() for one in listed)


async def states(harness) -> list[tuple[str, str]]:
    found, _ = await harness.services.deliveries.page([harness.id], Wanted(), limit=100)
    return [(one.course_id, one.state) for one in found]


async def test_a_delivery_is_found_in_each_of_its_states(subscribe, hook):
    harness = await subscribe(retry_schedule_seconds=(1,))
    hook.answer = lambda event: 500 if event["data"]["course_id"] != "good" else 204
    await harness.emit("good", "bad", "bad", "worse")
    await harness.turn()
    assert await states(harness) == [
        ("worse", "retrying"),
        ("bad", "pending"),
        ("bad", "retrying"),
        ("good", "delivered"),
    ]
    await check(harness)
    await harness.make_retries_due()
    await harness.turn()
    assert [state for _, state in await states(harness)] == [
        *("dead", "retrying", "dead", "delivered")
    ]
    await check(harness)
    (retrying,) = await harness.deliveries("retrying")
    assert (len(retrying.attempts), retrying.next_attempt_at is not None) == (1, True)

    replay = await ask(harness, "dead")
    await harness.turn()
    await check(harness)
    assert (await harness.services.replays.get(harness.id, replay.id))[1].queued == 2
    assert len(await harness.deliveries("dead")) == 2  # until they are delivered
    hook.answer = lambda _event: 204
    await harness.make_retries_due()
    await make_replayed_retries_due(harness)
    await harness.turn()
    assert {state for _, state in await states(harness)} == {"delivered"}
    await check(harness)


async def test_a_cancelled_replay_and_skipped_entries_leave_nothing(subscribe, hook):
    harness = await subscribe()
    await harness.emit("c1", "c2")
    await harness.turn()
    hook.answer = lambda _event: 500
    replay = await ask(harness)
    await harness.emit("c1", "c3")
    await harness.turn()
    await check(harness)
    assert len(await harness.deliveries("retrying")) == 2
    await harness.services.replays.cancel(harness.id, replay.id)
    await harness.services.outboxes.skip(harness.id, None)
    await check(harness)
    assert await states(harness) == [("c2", "delivered"), ("c1", "delivered")]


async def test_the_oldest_attempts_are_forgotten_by_number_and_by_age(
    subscribe, services, monkeypatch
):
    monkeypatch.setattr(module, "RecordAttempts", partial(RecordAttempts, kept_records=20))
    harness = await subscribe(max_concurrency=1)
    courses = [f"c{number}" for number in range(150)]
    await harness.emit(*courses)
    await harness.turn()
    await check(harness)
    kept = await services.redis.xlen(keys.attempts(harness.id))
    assert 20 <= kept < 120 + 8
    found = await harness.deliveries("delivered")
    assert [one.course_id for one in found] == courses[-kept:][:100]
    reach = await services.attempts.reach(harness.id)
    trimmed = await services.retention.trim(
        events_before=0, events_max_bytes=2**30, attempts_before=reach + 1, dead_before=0
    )
    assert trimmed["attempts"] > 0
    await check(harness)
    await services.retention.trim(
        events_before=0, events_max_bytes=2**30, attempts_before=2**42, dead_before=0
    )
    await check(harness)
    assert await states(harness) == []
