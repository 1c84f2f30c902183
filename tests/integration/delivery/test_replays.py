from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

from service.domain.access.grants import ApiKey, Grant, Scope
from service.domain.delivery.outbox_window import order_key
from service.domain.delivery.subscription import Payload
from service.domain.errors import ConflictError, NotFoundError
from service.domain.events.identifiers import position_ms
from service.domain.replay.replay import Replay
from service.ids import new_id
from service.storage.delivery.outboxes import NOT_GRANTED
from service.storage.redis import keys
from service.storage.redis.counters import field
from service.storage.replay.replays import Replayed


async def ask(harness, which="all", **fields) -> Replay:
    end, _ = await harness.services.events.bounds()
    replay = Replay(
        id=new_id("rpl"),
        subscription_id=harness.id,
        which=which,
        **({"end": end} | fields),
    )
    await harness.services.replays.create(replay)
    return replay


@contextmanager
def dying(harness, at_call: int) -> Iterator[None]:
    """The sender dies at one of the scripts that move a replay on: before it where the number of
    the call is odd, else after it."""
    services, calls = harness.services, 0

    def deadly(script):
        async def run(*arguments, **fields):
            nonlocal calls
            number, calls = calls, calls + 1
            if number == at_call and at_call % 2:
                raise RuntimeError("dead before it")
            result = await script(*arguments, **fields)
            if number == at_call:
                raise RuntimeError("dead after it")
            return result

        return run

    feed, record = services.replays.feed, services.outboxes.record
    services.replays.feed, services.outboxes.record = deadly(feed), deadly(record)
    try:
        yield
    finally:
        services.replays.feed, services.outboxes.record = feed, record


async def redeliver(harness, event) -> Replay:
    replay = Replay(id=new_id("rpl"), subscription_id=harness.id, which="event", event_id=event.id)
    key = order_key(event.integration_id, event.course_id)
    await harness.services.replays.create(replay, Replayed(key, "f", event.position))
    return replay


async def progress(harness, replay):
    _, found = await harness.services.replays.get(harness.id, replay.id)
    return found


async def log(harness) -> list:
    events, _ = await harness.services.events.read(None, 10_000)
    return events


async def total(harness, name) -> int:
    return int(await harness.services.redis.hget(keys.TOTALS, name) or 0)


async def make_replayed_retries_due(harness) -> None:
    redis = harness.services.redis.admin
    for key in await redis.zrange(keys.replayed_retries(harness.id), 0, -1):
        await redis.zadd(keys.replayed_retries(harness.id), {key: 1})


def numbers(hook, start=0) -> list[int]:
    return [event["data"]["course"]["n"] for _, event, _ in hook.received[start:]]


async def test_everything_is_sent_once_more_marked_under_its_id_and_in_its_bytes(subscribe, hook):
    harness = await subscribe()
    await harness.emit("c1", "c2", "c1")
    await harness.turn()
    first = sorted((name, body) for name, _, body in hook.received)
    assert all("coursewire-replay" not in headers for headers in hook.headers)
    replay = await ask(harness)
    assert await harness.next_turn_at() is not None
    assert (await progress(harness, replay)).state == "queued"
    assert await total(harness, "replays") == 1

    await harness.turn()

    again = hook.received[3:]
    assert sorted((name, body) for name, _, body in again) == first
    assert all(headers["coursewire-replay"] == "true" for headers in hook.headers[3:])
    done = await progress(harness, replay)
    assert (done.state, done.scanned, done.queued, done.delivered, done.dead) == (
        "completed",
        3,
        3,
        3,
        0,
    )
    assert done.finished_at >= done.started_at >= done.created_at
    assert (await total(harness, "replays"), await total(harness, "pending")) == (0, 0)
    assert await harness.next_turn_at() is None
    deliveries = await harness.deliveries("delivered")
    assert [[one.replay for one in delivery.attempts] for delivery in deliveries] == [
        [False, True]
    ] * 3
    counters, _ = await harness.services.counters.read()
    assert counters["deliveries_total|delivered"] == 3
    assert counters["replayed_total|delivered"] == 3


async def test_a_replay_takes_what_matches_now_of_its_time_and_types(subscribe, hook):
    harness = await subscribe()
    await harness.emit("c1", "c2", "c3", "c4")
    await harness.turn()
    second, third = (await log(harness))[1:3]
    since = position_ms(second.position)
    await ask(harness, start=str(since), since=since, end=third.position)
    await ask(harness, event_types=("course.created",))
    await harness.turn()
    assert set(hook.courses()[4:]) >= {"c2", "c3"}
    assert "c4" not in hook.courses()[4:] or position_ms(third.position) == position_ms(
        (await log(harness))[3].position
    )
    sent = len(hook.received)
    services = harness.services
    await services.subscriptions.update(
        harness.id, lambda old: msgspec.structs.replace(old, changed=("provider",))
    )
    replay = await ask(harness)
    await harness.turn()
    assert len(hook.received) == sent
    done = await progress(harness, replay)
    assert (done.state, done.scanned, done.queued) == ("completed", 4, 0)


async def test_a_replay_has_the_rendering_of_today(subscribe, hook):
    harness = await subscribe()
    await harness.emit("c1")
    await harness.turn()
    await harness.services.subscriptions.update(
        harness.id, lambda old: msgspec.structs.replace(old, payload=Payload.THIN)
    )
    await ask(harness)
    await harness.turn()
    assert hook.received[1][1]["data"]["course_omitted"] == "thin"
    assert hook.received[0][0] == hook.received[1][0]


async def test_many_events_are_fed_in_parts_and_keep_the_order_of_their_courses(
    subscribe, hook, monkeypatch
):
    monkeypatch.setattr("workers.delivery.replay_feed.SCANNED", 7)
    harness = await subscribe()
    await harness.emit(*(f"c{number % 5}" for number in range(60)))
    await harness.services.outboxes.skip(harness.id, None)
    replay = await ask(harness)
    longest = 0
    feed = harness.services.replays.feed

    async def watched(*arguments):
        nonlocal longest
        status = await feed(*arguments)
        longest = max(longest, await harness.services.redis.xlen(keys.replayed(harness.id)))
        return status

    harness.services.replays.feed = watched
    await harness.turn()
    assert (await progress(harness, replay)).delivered == 60
    assert longest <= 40
    assert len(hook.received) == 60
    for course in range(5):
        found = [
            event["data"]["sequence"]
            for _, event, _ in hook.received
            if event["data"]["course_id"] == f"c{course}"
        ]
        assert found == sorted(found)


async def test_a_failing_replay_holds_up_its_course_among_replays_and_no_live_event(
    subscribe, hook
):
    harness = await subscribe()
    await harness.emit("bad", "bad", "good")
    await harness.turn()
    sent = len(hook.received)
    hook.answer = lambda event: 500 if event["data"]["course"]["n"] == 0 else 204
    replay = await ask(harness)
    await harness.turn()
    assert sorted(numbers(hook, sent)) == [0, 2]
    assert (await progress(harness, replay)).state == "running"
    assert await harness.next_turn_at() is not None
    await harness.emit("other", "bad")  # n is 0 and 1
    hook.answer = lambda _event: 204
    await harness.turn()
    assert hook.courses()[sent + 2 :] == ["other", "bad"]
    assert (await harness.depth()).pending == 0

    await make_replayed_retries_due(harness)
    await harness.turn()
    assert numbers(hook, sent + 4) == [0, 1]
    assert (await progress(harness, replay)).state == "completed"
    retried = (await harness.deliveries())[0]
    assert [(one.replay, one.number) for one in retried.attempts] == [
        (False, 1),
        (True, 1),
        (True, 2),
    ]


async def test_a_live_outbox_goes_first_and_replays_do_not_starve(subscribe, hook):
    harness = await subscribe(max_concurrency=1)
    await harness.emit(*(f"old{number}" for number in range(30)))
    await harness.services.outboxes.skip(harness.id, None)
    await ask(harness)
    await harness.emit(*(f"new{number}" for number in range(30)))
    await harness.turn()
    kinds = ["old" if course.startswith("old") else "new" for course in hook.courses()]
    assert len(kinds) == 60
    busy = kinds[: 60 - kinds[::-1].index("new")]
    assert 5 <= busy.count("old") <= 12
    # Before the first one was fed there was nothing to mix.
    runs = "".join(kind[0] for kind in busy[busy.index("old") :]).split("o")
    assert max(map(len, runs)) <= 5


async def test_what_is_dead_is_replayed_with_its_rendering_and_listed_no_more(subscribe, hook):
    harness = await subscribe(retry_schedule_seconds=())
    hook.answer = lambda event: 500 if event["data"]["course_id"] == "bad" else 204
    await harness.emit("bad", "good", "bad")
    await harness.turn()
    assert (await harness.depth()).dead == 2
    await harness.services.subscriptions.update(
        harness.id, lambda old: msgspec.structs.replace(old, payload=Payload.THIN)
    )
    replay = await ask(harness, "dead")
    await harness.turn()  # they die again, and are listed once
    assert (await progress(harness, replay)).dead == 2
    assert (await progress(harness, replay)).state == "completed"
    assert (await harness.depth()).dead == 2
    assert await total(harness, "dead") == 2

    hook.answer = lambda _event: 204
    sent = len(hook.received)
    replay = await ask(harness, "dead")
    await harness.turn()
    assert numbers(hook, sent) == [0, 2]
    assert (await progress(harness, replay)).delivered == 2
    assert (await harness.depth()).dead == 0
    assert await total(harness, "dead") == 0
    assert await harness.deliveries("dead") == []
    assert len(await harness.deliveries("delivered")) == 3


async def test_dead_deliveries_since_1970_are_replayed(subscribe, hook):
    harness = await subscribe(retry_schedule_seconds=())
    hook.answer = lambda _event: 500
    await harness.emit("c1")
    await harness.turn()
    hook.answer = lambda _event: 204
    replay = await ask(harness, "dead", start="0", since=0)
    await harness.turn()
    assert (await progress(harness, replay)).delivered == 1


async def test_dead_deliveries_whose_events_are_gone_are_not_tried(subscribe, hook):
    harness = await subscribe(retry_schedule_seconds=())
    hook.answer = lambda _event: 500
    await harness.emit("a", "b")
    await harness.turn()
    redis = harness.services.redis.admin
    (first, _) = await log(harness)
    await redis.xdel(keys.EVENTS, first.position)
    await redis.set(keys.EVENTS_TRIMMED, first.position)
    hook.answer = lambda _event: 204
    replay = await ask(harness, "dead")
    await harness.turn()
    assert hook.courses()[2:] == ["b"]
    assert (await progress(harness, replay)).state == "completed"
    assert await total(harness, "dead") == 1


async def test_what_is_missing_is_neither_delivered_nor_pending(subscribe, hook):
    harness = await subscribe()
    hook.answer = lambda event: 500 if event["data"]["course_id"] == "failing" else 204
    await harness.emit("skipped")
    await harness.services.outboxes.skip(harness.id, None)
    await harness.emit("delivered", "failing")
    await harness.turn()
    sent = len(hook.received)
    replay = await ask(harness, "missing")
    await harness.turn()
    assert hook.courses()[sent:] == ["skipped"]
    done = await progress(harness, replay)
    assert (done.state, done.scanned, done.queued) == ("completed", 3, 1)
    again = await ask(harness, "missing")
    await harness.turn()
    assert (await progress(harness, again)).queued == 0
    assert len(hook.received) == sent + 1


async def test_what_was_delivered_is_not_guessed_where_attempts_were_trimmed(subscribe, hook):
    harness = await subscribe()
    await harness.emit("c1", "c2")
    await harness.turn()
    services = harness.services
    assert await services.attempts.reach(harness.id) is None
    await services.redis.xtrim(keys.attempts(harness.id), maxlen=1, approximate=False)
    first = (await services.redis.xrange(keys.attempts(harness.id)))[0][0]
    assert await services.attempts.reach(harness.id) == int(first.split(b"-")[0])
    replay = await ask(harness, "missing")
    await harness.turn()
    done = await progress(harness, replay)
    assert done.state == "failed"
    assert "attempts before" in done.error
    assert len(hook.received) == 2
    assert await total(harness, "replays") == 0
    await services.redis.xtrim(keys.attempts(harness.id), maxlen=0, approximate=False)
    assert await services.attempts.reach(harness.id) > int(first.split(b"-")[0])


async def test_replays_follow_each_other(subscribe, hook):
    harness = await subscribe(max_concurrency=1)
    await harness.emit("c1", "c2")
    await harness.turn()
    replays = [await ask(harness) for _ in range(3)]
    assert await total(harness, "replays") == 3
    await harness.turn()
    assert hook.courses()[2:] == ["c1", "c2"] * 3
    assert [(await progress(harness, one)).state for one in replays] == ["completed"] * 3


async def test_a_cancelled_replay_sends_nothing_more(subscribe, hook):
    harness = await subscribe(max_concurrency=1)
    await harness.emit(*(f"c{number}" for number in range(20)))
    await harness.services.outboxes.skip(harness.id, None)
    replay, waiting = await ask(harness), await ask(harness)
    services = harness.services
    await services.replays.cancel(harness.id, waiting.id)
    hook.gate.clear()
    turn = asyncio.create_task(harness.turn())
    await hook.holds(1)
    await services.replays.cancel(harness.id, replay.id)
    hook.gate.set()
    await turn
    sent = len(hook.received)
    assert sent < 20  # what began before the first answer was recorded
    assert await services.redis.xlen(keys.replayed(harness.id)) == 0
    assert (await progress(harness, replay)).state == "cancelled"
    assert (await progress(harness, waiting)).state == "cancelled"
    assert await total(harness, "replays") == 0
    with pytest.raises(ConflictError):
        await services.replays.cancel(harness.id, replay.id)
    with pytest.raises(NotFoundError):
        await services.replays.cancel(harness.id, "rpl_x")
    await harness.turn()
    assert len(hook.received) == sent


async def test_one_event_is_redelivered_before_others_are_read(subscribe, hook):
    harness = await subscribe()
    await harness.emit("c1", "c2")
    await harness.turn()
    await harness.services.subscriptions.update(
        harness.id, lambda old: msgspec.structs.replace(old, changed=("provider",))
    )
    replay = await redeliver(harness, (await log(harness))[1])
    assert (await progress(harness, replay)).state == "running"
    await harness.turn()
    assert hook.courses() == ["c1", "c2", "c2"]
    assert hook.received[1] == hook.received[2]
    done = await progress(harness, replay)
    assert (done.state, done.scanned, done.queued, done.delivered) == ("completed", 1, 1, 1)


async def test_a_redelivered_event_that_waits_for_a_retry_is_sent_once(subscribe, hook):
    harness = await subscribe()
    hook.answer = lambda _event: 500
    await harness.emit("c1", "c1", "c2")
    await harness.turn()
    hook.answer = lambda _event: 204
    replay = await redeliver(harness, (await log(harness))[0])
    await harness.turn()
    # The course goes on with its next event at once.
    assert await harness.next_turn_at() <= await harness.now()
    await harness.turn()
    assert [name for name in hook.courses() if name == "c1"] == ["c1"] * 3
    assert (await progress(harness, replay)).delivered == 1
    assert (await harness.depth()).pending == 1
    assert await total(harness, "pending") == 1
    counters = await harness.services.counters.key()
    delivered = field("deliveries_total", state="delivered")
    assert await harness.services.redis.hget(counters, delivered) == b"2"
    sent = len(hook.received)
    await harness.make_retries_due()
    await harness.turn()
    assert len(hook.received) == sent + 1
    assert {one.state for one in await harness.deliveries()} == {"delivered"}


async def test_a_redelivery_that_fails_ends_with_the_retry_that_succeeds(subscribe, hook):
    harness = await subscribe()
    hook.answer = lambda _event: 500
    await harness.emit("c1")
    await harness.turn()
    replay = await redeliver(harness, (await log(harness))[0])
    await harness.turn()
    assert (await harness.depth()).replaying
    hook.answer = lambda _event: 204
    await harness.make_retries_due()
    await harness.turn()
    sent = len(hook.received)
    await make_replayed_retries_due(harness)
    await harness.turn()
    assert len(hook.received) == sent == 3
    done = await progress(harness, replay)
    assert (done.state, done.delivered, done.dead) == ("completed", 1, 0)
    assert await harness.services.redis.zcard(keys.replayed_order(harness.id)) == 0
    assert await total(harness, "pending") == 0


async def test_a_replay_of_everything_sends_what_is_pending_as_well(subscribe, hook):
    harness = await subscribe()
    hook.answer = lambda _event: 500
    await harness.emit("c1")
    await harness.turn()
    hook.answer = lambda _event: 204
    replay = await ask(harness)
    await harness.turn()
    assert (await progress(harness, replay)).delivered == 1
    await harness.make_retries_due()
    await harness.turn()
    assert hook.courses() == ["c1"] * 3


async def test_a_retry_that_is_asked_for_is_made_while_the_outbox_is_held_back(subscribe, hook):
    harness = await subscribe()
    hook.answer = lambda _event: 429
    hook.extra = {"retry-after": "3600"}
    await harness.emit("c1", "c1", "c2")
    await harness.turn()
    sent, event = len(hook.received), (await log(harness))[1]
    hook.answer = lambda _event: 204
    assert await harness.services.retries.retry(harness.id, event.id) == 1
    await harness.turn()
    assert hook.courses()[sent:] == ["c1", "c1"]
    assert await harness.services.retries.retry(harness.id) == 1
    await harness.turn()
    assert hook.courses()[-1] == "c2"
    with pytest.raises(NotFoundError, match="redeliver"):
        await harness.services.retries.retry(harness.id, event.id)


@pytest.mark.parametrize("at_call", range(8))
async def test_a_replay_survives_a_sender_that_dies_anywhere(subscribe, hook, monkeypatch, at_call):
    """The sender dies before or after one of the scripts that move the replay on."""
    monkeypatch.setattr("workers.delivery.replay_feed.SCANNED", 4)
    harness = await subscribe(max_concurrency=2)
    await harness.emit(*(f"c{number % 3}" for number in range(20)))
    await harness.services.outboxes.skip(harness.id, None)
    replay = await ask(harness)
    with dying(harness, at_call), pytest.raises(RuntimeError, match="dead"):
        await harness.turn()
    services = harness.services
    await services.redis.delete(keys.lease("outboxes", harness.id))
    await harness.turn()
    done = await progress(harness, replay)
    assert (done.state, done.scanned, done.queued, done.delivered) == ("completed", 20, 20, 20)
    assert await services.redis.xlen(keys.replayed(harness.id)) == 0
    for course in range(3):
        seen = list(
            dict.fromkeys(
                event["data"]["sequence"]
                for _, event, _ in hook.received
                if event["data"]["course_id"] == f"c{course}"
            )
        )
        assert seen == sorted(seen)


async def test_a_parked_outbox_probes_with_a_replay_if_there_is_nothing_else(subscribe, hook):
    harness = await subscribe()
    await harness.emit("c1", "c2")
    await harness.turn()
    parked = {"failures": 12, "failing_since": 1, "parked_at": 1, "probe_at": 1}
    redis = harness.services.redis.admin
    await redis.hset(keys.outbox_state(harness.id), "breaker", json.dumps(parked))
    await redis.hset(keys.outbox_state(harness.id), "parked", 1)
    hook.answer = lambda _event: 500
    replay = await ask(harness)
    await harness.turn()
    assert len(hook.received) == 3
    assert (await harness.breaker()).probes == 1
    assert await redis.zscore(keys.claimed("outboxes"), harness.id) is not None  # until the next
    hook.answer = lambda _event: 204
    await harness.services.subscriptions.resume(harness.id, 5)
    await harness.turn()
    assert (await progress(harness, replay)).state == "completed"


async def test_a_paused_subscription_replays_nothing_until_it_goes_on(subscribe, hook):
    harness = await subscribe()
    await harness.emit("c1")
    await harness.turn()
    store = harness.services.subscriptions
    await store.update(harness.id, lambda old: msgspec.structs.replace(old, paused=True))
    replay = await ask(harness)
    await harness.turn()
    assert len(hook.received) == 1
    assert await harness.next_turn_at() is None
    await store.update(harness.id, lambda old: msgspec.structs.replace(old, paused=False))
    assert await harness.next_turn_at() is not None
    await harness.turn()
    assert (await progress(harness, replay)).state == "completed"
    await store.update(harness.id, lambda old: msgspec.structs.replace(old, paused=True))
    await ask(harness)
    await harness.turn()
    await store.resume(harness.id, 5)
    assert await harness.next_turn_at() is not None
    await harness.services.redis.zrem(keys.due("outboxes"), harness.id)
    assert await harness.services.reconciliation.reconcile() == 1


async def test_events_that_the_retention_overtook_are_spoken_of(subscribe, hook):
    harness = await subscribe()
    await harness.emit("a", "b")
    await harness.turn()
    first, _ = await log(harness)
    since = position_ms(first.position) - 5
    replay = await ask(harness, since=since, start=str(since))
    redis = harness.services.redis.admin
    await redis.xdel(keys.EVENTS, first.position)
    await redis.set(keys.EVENTS_TRIMMED, first.position)
    await harness.turn()
    done = await progress(harness, replay)
    assert (done.state, done.delivered) == ("completed", 1)
    assert "trimmed by the retention" in done.error


async def test_a_deleted_subscription_leaves_nothing_of_its_replays(subscribe, hook):
    harness = await subscribe()
    await harness.emit("c1", "c2")
    hook.answer = lambda _event: 500
    await ask(harness)
    await ask(harness, start="9", end="9")
    await harness.turn()
    await ask(harness)
    await harness.services.subscriptions.delete(harness.id)
    assert await harness.services.redis.admin.keys(f"*{harness.id}*") == []
    assert await total(harness, "replays") == 0


async def test_only_the_latest_replays_that_have_ended_are_kept(subscribe, hook, monkeypatch):
    monkeypatch.setattr("service.storage.replay.replays.MAX_KEPT", 3)
    harness = await subscribe()
    replays = [await ask(harness) for _ in range(5)]
    assert await harness.services.redis.zcard(keys.replays(harness.id)) == 5
    await harness.turn()
    replays.append(await ask(harness))
    found, _ = await harness.services.replays.page(harness.id, 10)
    assert {one.id for one, _ in found} >= {replays[-1].id}
    assert len(found) == 3


async def test_what_waits_behind_a_failing_replay_is_not_read_again_with_every_live_event(
    subscribe, hook, services
):
    harness = await subscribe()
    await harness.emit(*["bad"] * 300)
    await services.outboxes.skip(harness.id, None)
    hook.answer = lambda event: 500 if event["data"]["course_id"] == "bad" else 204
    replay = await ask(harness)
    await harness.turn()
    reads = []
    read = services.outboxes.read

    async def counted(*arguments):
        found = await read(*arguments)
        reads.append(len(found))
        return found

    services.outboxes.read = counted
    await harness.emit("good")
    await harness.turn()
    assert hook.courses() == ["bad", "good"]
    assert sum(reads) <= 2
    hook.answer = lambda _event: 204
    await make_replayed_retries_due(harness)
    while (await progress(harness, replay)).state == "running":
        await harness.turn()  # one is enough, unless the machine is slow
    assert (await progress(harness, replay)).state == "completed"
    assert len(hook.received) == 302


async def test_a_replay_that_is_cancelled_during_a_turn_frees_the_courses_of_the_next(
    subscribe, hook, services
):
    harness = await subscribe(max_concurrency=1)
    await harness.emit("bad", "slow")
    await services.outboxes.skip(harness.id, None)
    hook.answer = lambda event: 500 if event["data"]["course_id"] == "bad" else 204
    first, second = await ask(harness), await ask(harness)
    await harness.turn()
    assert (await progress(harness, first)).state == "running"
    hook.gate.clear()
    await harness.emit("live")
    turn = asyncio.create_task(harness.turn())
    await hook.holds(1)
    await services.replays.cancel(harness.id, first.id)
    hook.answer = lambda _event: 204
    hook.gate.set()
    await turn
    assert await harness.next_turn_at() <= await harness.now()
    await harness.turn()
    assert (await progress(harness, second)).state == "completed"


async def test_at_the_memory_limit_replays_wait_and_deliveries_go_on(subscribe, hook, services):
    harness = await subscribe()
    await harness.emit("c1")
    replay = await ask(harness)
    limit = await services.redis.admin.config_get("maxmemory")
    await services.redis.admin.config_set("maxmemory", 1)
    try:
        await harness.turn()
    finally:
        await services.redis.admin.config_set("maxmemory", limit["maxmemory"])
    assert hook.courses() == ["c1"]
    assert (await progress(harness, replay)).state == "queued"
    wait = await harness.next_turn_at() - await harness.now()
    assert 5_000 < wait <= 15_000
    await harness.turn()
    assert (await progress(harness, replay)).state == "completed"


async def test_a_replay_sends_what_its_subscriptions_owner_is_granted_alone(
    subscribe, hook, services
):
    def key(number, grant) -> ApiKey:
        return ApiKey(
            id=f"key_{number}",
            name="tenant",
            scope=Scope.SUBSCRIBER,
            created_at=1,
            updated_at=1,
            grant=Grant(integration_ids=(grant,)),
        )

    for number, grant in enumerate(("int_a", "int_b")):
        await services.api_keys.create(key(number, grant))
    granted, other = await subscribe(owner="key_0"), await subscribe(owner="key_1")
    await granted.emit("c1", "c2")
    await services.outboxes.skip(granted.id, None)
    for which in ("all", "missing"):
        replay = await ask(granted, which)
        await granted.turn()
        assert (await progress(granted, replay)).delivered == (2 if which == "all" else 0)
        replay = await ask(other, which)
        await other.turn()
        assert (await progress(other, replay)).queued == 0
    replay = await redeliver(other, (await log(other))[0])
    await other.turn()
    assert (await progress(other, replay)).dead == 1
    (dead,) = await other.deliveries("dead")
    assert dead.reason == NOT_GRANTED
    assert len(hook.received) == 2
