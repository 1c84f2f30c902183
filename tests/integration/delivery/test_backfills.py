from __future__ import annotations

import asyncio
import json

import msgspec
import pytest

from service.domain.access.grants import ApiKey, Grant, Scope
from service.domain.events.identifiers import event_position, is_backfilled
from service.domain.polling.integration import Baseline
from service.domain.replay.backfill import read_progress
from service.domain.replay.replay import Replay
from service.ids import new_id
from service.storage.delivery.outboxes import EXPIRED, NOT_GRANTED
from service.storage.redis import keys
from tests.integration.conftest import new_credential, new_integration
from tests.integration.delivery.test_replays import dying
from tests.integration.scripted import page, refuses, says

SMALL = pytest.mark.parametrize("sandbox", [30], indirect=True)


async def ask(harness, **fields) -> Replay:
    replay = Replay(id=new_id("rpl"), subscription_id=harness.id, which="backfill", **fields)
    await harness.services.replays.create(replay)
    return replay


async def progress(harness, replay):
    _, found = await harness.services.replays.get(harness.id, replay.id)
    return found


async def finish(harness, replay, turns=20):
    """Turns until the replay has ended, whatever it waits for."""
    for _ in range(turns):
        await harness.turn()
        found = await progress(harness, replay)
        if found.finished_at is not None:
            return found
        await pass_waits(harness, replay)
    raise AssertionError(found)


async def pass_waits(harness, replay) -> None:
    """Lets the wait that a backfill is in be over."""
    key = keys.replay(harness.id, replay.id)
    stored = await harness.services.redis.hget(key, "position")
    if stored:
        moved = msgspec.structs.replace(read_progress(stored.decode()), wait_until=0)
        await harness.services.redis.hset(key, "position", msgspec.json.encode(moved))


async def baselined(register, **fields):
    integration = await register(**fields)
    await integration.turn()
    assert (await integration.state()).baselined
    return integration


async def nothing_is_left(harness) -> None:
    redis = harness.services.redis.admin
    assert await redis.xlen(keys.replayed(harness.id)) == 0
    assert await redis.xlen(keys.backfilled(harness.id)) == 0
    assert int(await redis.hget(keys.TOTALS, "replays") or 0) == 0


async def test_every_live_course_is_sent_once_as_created_to_that_outbox_alone(
    register, subscribe, hook, services, sandbox
):
    integration = await baselined(register)
    before = await integration.events()
    catalogue = await services.redis.hgetall(
        keys.catalogue(integration.id, (await integration.state()).epoch)
    )
    other, harness = await subscribe(), await subscribe()
    replay = await ask(harness)
    done = await finish(harness, replay)
    assert (done.state, done.scanned, done.queued, done.delivered) == ("completed", 600, 600, 600)
    assert (done.left_out, done.dead, done.error) == (0, 0, None)
    courses = {one["id"]: one for one in await sandbox.courses()}
    assert sorted(hook.courses()) == sorted(courses)
    assert all(headers["coursewire-replay"] == "true" for headers in hook.headers)
    for identifier, event, _ in hook.received:
        data = event["data"]
        assert event["type"] == "course.created"
        assert (data["initial"], data["detected_by"]) == (True, "backfill")
        assert (data["sequence"], data["previous_sequence"]) == (1, None)
        assert data["course"]["id"] == data["course_id"]
        assert data["event_id"] == identifier
        assert is_backfilled(event_position(identifier)[0])
    assert len({identifier for identifier, _, _ in hook.received}) == 600
    # Nobody else is told anything, and nothing is known that was not known before.
    assert await integration.events() == before
    assert (await other.depth()).pending == 0
    assert catalogue == await services.redis.hgetall(
        keys.catalogue(integration.id, (await integration.state()).epoch)
    )
    assert len(await integration.polls()) == 1
    await nothing_is_left(harness)
    counters, _ = await services.counters.read()
    assert counters["backfilled_total|queued"] == 600
    assert counters["replayed_total|delivered"] == 600
    delivered = await harness.deliveries("delivered")
    assert len(delivered) == 100
    assert {one.event_id for one in delivered} <= {name for name, _, _ in hook.received}


@SMALL
async def test_the_sequence_is_that_of_the_last_event_so_that_later_ones_are_above_it(
    register, subscribe, hook, sandbox
):
    integration = await baselined(register, baseline=Baseline.EMIT)
    await sandbox.change({"op": "edit", "count": 5}, {"op": "delete", "count": 2})
    await integration.poll("delta")
    latest = {one.course_id: one for one in await integration.events() if one.course_id}
    harness = await subscribe()
    await finish(harness, await ask(harness))
    live = {name for name, one in latest.items() if one.type != "course.deleted"}
    assert sorted(hook.courses()) == sorted(live)
    assert len(live) == 28
    for _, event, _ in hook.received:
        course_id = event["data"]["course_id"]
        assert event["data"]["sequence"] == latest[course_id].sequence
    sent = {event["data"]["course_id"]: event["data"] for _, event, _ in hook.received}
    (edited,) = await sandbox.change({"op": "edit", "count": 1})
    await integration.poll("delta")
    (update,) = (await integration.events())[-1:]
    assert update.course_id == edited["course_id"]
    assert update.sequence > sent[update.course_id]["sequence"]


@SMALL
async def test_news_are_left_to_the_polls_and_asked_for_once_more_after_them(
    register, subscribe, hook, sandbox
):
    integration = await baselined(register)
    harness = await subscribe()
    changes = await sandbox.change({"op": "edit", "count": 2}, {"op": "create", "count": 1})
    news = {change["course_id"] for change in changes}
    replay = await ask(harness)
    await harness.turn()
    assert set(hook.courses()).isdisjoint(news)
    assert len(hook.received) == 31 - len(news)
    stands = await progress(harness, replay)
    assert stands.state == "running"
    wait = await harness.next_turn_at() - await harness.now()
    assert 10_000 < wait <= 75_000
    await integration.poll("delta")
    await pass_waits(harness, replay)
    done = await finish(harness, replay)
    assert (done.state, done.queued, done.left_out) == ("completed", 31, 0)
    backfilled = [
        event["data"]
        for (_, event, _), headers in zip(hook.received, hook.headers, strict=True)
        if "coursewire-replay" in headers
    ]
    assert len(backfilled) == 31
    reported = {one.course_id: one.sequence for one in await integration.events() if one.course_id}
    assert {one["course_id"]: one["sequence"] for one in backfilled if one["sequence"] > 1} == (
        reported
    )


@SMALL
async def test_what_no_poll_reports_is_left_out_and_spoken_of(register, subscribe, hook, sandbox):
    await baselined(register)
    harness = await subscribe()
    (changed,) = await sandbox.change({"op": "provider", "count": 1})
    done = await finish(harness, await ask(harness))
    assert (done.state, done.queued, done.left_out) == ("completed", 29, 1)
    assert "1 courses were left out" in done.error
    assert changed["course_id"] not in hook.courses()


@pytest.mark.parametrize("sandbox", [300], indirect=True)
async def test_what_is_held_for_review_or_about_to_be_is_not_sent(
    register, subscribe, hook, sandbox
):
    integration = await baselined(register)
    harness = await subscribe()
    await sandbox.change({"op": "field_off", "path": "revisions.title"})
    done = await finish(harness, await ask(harness))
    assert (done.queued, done.left_out) == (0, 300)  # no poll has seen it yet
    await integration.poll("full")
    assert (await integration.state()).held == 300
    done = await finish(harness, await ask(harness))
    assert (done.queued, done.left_out) == (0, 300)
    assert hook.received == []


@SMALL
async def test_the_bytes_are_fixed_when_the_event_enters(register, subscribe, hook, services):
    integration = await baselined(register)
    harness = await subscribe()
    hook.answer = lambda _event: 500
    replay = await ask(harness)
    await harness.turn()
    first = {name: body for name, _, body in hook.received}
    assert len(first) > 5
    await services.integrations.update(
        integration.id, lambda old: msgspec.structs.replace(old, labels={"new": "label"})
    )
    pending = await harness.deliveries("pending", "retrying")
    assert {one.event_id for one in pending} >= set(first)
    hook.answer = lambda _event: 204
    await services.subscriptions.resume(harness.id, 5)
    assert (await finish(harness, replay)).delivered == 30
    again = {name: body for name, _, body in hook.received[len(first) :]}
    assert {name: again[name] for name in first} == first
    assert len(again) == 30


@pytest.mark.parametrize("at_call", range(10))
@pytest.mark.parametrize("sandbox", [60], indirect=True)
async def test_a_backfill_survives_a_sender_that_dies_anywhere(
    register, subscribe, hook, monkeypatch, at_call
):
    monkeypatch.setattr("workers.delivery.backfill_choice.FIRST_PAGE_SIZE", 10)
    await baselined(register)
    harness = await subscribe(max_concurrency=4)
    replay = await ask(harness)
    with dying(harness, at_call), pytest.raises(RuntimeError, match="dead"):
        await finish(harness, replay)
    services = harness.services
    await services.redis.delete(keys.lease("outboxes", harness.id))
    done = await finish(harness, replay)
    assert (done.state, done.scanned, done.queued, done.delivered) == ("completed", 60, 60, 60)
    assert len(set(hook.courses())) == 60
    ids = {name: event["data"]["course_id"] for name, event, _ in hook.received}
    assert len(ids) == 60
    bodies = {(name, body) for name, _, body in hook.received}
    assert len(bodies) == 60
    await nothing_is_left(harness)


@pytest.mark.parametrize("sandbox", [120], indirect=True)
async def test_little_waits_however_many_courses_there_are(
    register, subscribe, hook, services, monkeypatch
):
    monkeypatch.setattr("workers.delivery.backfill_choice.FIRST_PAGE_SIZE", 10)
    monkeypatch.setattr("workers.delivery.backfill_feed.MOST_AHEAD", 25)
    await baselined(register)
    harness = await subscribe(max_concurrency=1, rate_per_second=1000)
    longest = 0
    feed = services.replays.feed

    async def watched(*arguments):
        nonlocal longest
        status = await feed(*arguments)
        longest = max(longest, await services.redis.xlen(keys.backfilled(harness.id)))
        return status

    services.replays.feed = watched
    hook.answer = lambda _event: 500  # so that everything waits for its retry
    replay = await ask(harness)
    for _ in range(6):
        await harness.turn()
        await services.subscriptions.resume(harness.id, 5)
    assert 20 <= longest <= 35
    hook.answer = lambda _event: 204
    done = await finish(harness, replay)
    assert (done.delivered, done.dead) == (120, 0)
    assert longest <= 35
    await nothing_is_left(harness)


@SMALL
async def test_a_cancelled_backfill_leaves_nothing_and_asks_for_nothing_more(
    register, subscribe, hook, services, sandbox
):
    await baselined(register)
    harness = await subscribe()
    hook.answer = lambda _event: 500
    replay = await ask(harness)
    await harness.turn()
    asked = len(await sandbox.served())
    assert await services.redis.xlen(keys.backfilled(harness.id)) == 30
    await services.replays.cancel(harness.id, replay.id)
    await nothing_is_left(harness)
    await harness.turn()
    assert len(await sandbox.served()) == asked
    assert (await progress(harness, replay)).state == "cancelled"


@SMALL
async def test_a_deleted_subscription_leaves_nothing_of_its_backfill(
    register, subscribe, hook, services
):
    await baselined(register)
    harness = await subscribe()
    hook.answer = lambda _event: 500
    await ask(harness)
    await harness.turn()
    await services.subscriptions.delete(harness.id)
    assert await services.redis.admin.keys(f"*{harness.id}*") == []


@SMALL
async def test_it_goes_through_what_matches_and_is_granted_alone(
    register, subscribe, hook, services, sandbox, context
):
    acme = await baselined(register, labels={"tenant": "acme"})
    other = await new_integration(
        context,
        sandbox.base_url,
        credential_id=await new_credential(services, sandbox.base_url + "/"),
        labels={"tenant": "other"},
    )
    await other.turn()
    assert (await other.state()).baselined
    await services.api_keys.create(
        ApiKey(
            id="key_1",
            name="tenant",
            scope=Scope.SUBSCRIBER,
            created_at=1,
            updated_at=1,
            grant=Grant(labels={"tenant": "acme"}),
        )
    )
    for fields in (
        {"owner": "key_1"},
        {"labels": {"tenant": "acme"}},
        {"integration_ids": (acme.id,)},
    ):
        harness = await subscribe(**fields)
        start = len(hook.received)
        done = await finish(harness, await ask(harness))
        assert (done.scanned, done.delivered, done.error) == (30, 30, None)
        seen = {event["data"]["integration_id"] for _, event, _ in hook.received[start:]}
        assert seen == {acme.id}
    both = await subscribe()
    done = await finish(both, await ask(both))
    assert (done.scanned, done.delivered) == (60, 60)
    nobody = await subscribe(owner="key_gone")
    done = await finish(nobody, await ask(nobody))
    assert (done.state, done.scanned) == ("completed", 0)


@SMALL
async def test_a_grant_that_is_withdrawn_meanwhile_ends_it(register, subscribe, hook, services):
    await baselined(register)
    key = ApiKey(
        id="key_1",
        name="tenant",
        scope=Scope.SUBSCRIBER,
        created_at=1,
        updated_at=1,
        grant=Grant(labels={"tenant": "acme"}),
    )
    integration = await services.integrations.page(1)
    await services.integrations.update(
        integration[0][0][0].id,
        lambda old: msgspec.structs.replace(old, labels={"tenant": "acme"}),
    )
    await services.api_keys.create(key)
    harness = await subscribe(owner="key_1")
    hook.answer = lambda _event: 500
    replay = await ask(harness)
    await harness.turn()
    sent = len(hook.received)
    await services.api_keys.revoke("key_1")
    await services.subscriptions.resume(harness.id, 5)
    done = await finish(harness, replay)
    assert (done.dead, done.delivered) == (30, 0)
    assert len(hook.received) == sent
    dead = await harness.deliveries("dead")
    assert {one.reason for one in dead} == {NOT_GRANTED}
    await nothing_is_left(harness)


async def test_an_integration_without_a_baseline_is_waited_for_and_comes_last(
    register, subscribe, hook, services, sandbox, context
):
    pending = await register(labels={"n": "1"})
    ready = await new_integration(
        context,
        sandbox.base_url,
        credential_id=await new_credential(services, sandbox.base_url + "/"),
    )
    await ready.turn()
    harness = await subscribe()
    replay = await ask(harness)
    await harness.turn()
    await pass_waits(harness, replay)
    await harness.turn()
    stands = await progress(harness, replay)
    assert (stands.state, stands.delivered) == ("running", 600)
    wait = await harness.next_turn_at() - await harness.now()
    assert 5_000 < wait <= 15_000
    await pending.turn()
    done = await finish(harness, replay)
    assert (done.state, done.delivered) == ("completed", 1200)


@SMALL
async def test_what_cannot_be_gone_through_is_spoken_of(register, subscribe, services, sandbox):
    integration = await baselined(register)
    harness = await subscribe()
    await services.integrations.update(
        integration.id, lambda old: msgspec.structs.replace(old, paused=True)
    )
    done = await finish(harness, await ask(harness))
    assert (done.state, done.queued) == ("failed", 0)
    assert done.error == f"{integration.id} was not read to its end: it is paused"
    await services.integrations.update(
        integration.id, lambda old: msgspec.structs.replace(old, paused=False)
    )
    await sandbox.fault("error", code="PLATFORM.AUTHENTICATION_INVALID")
    done = await finish(harness, await ask(harness))
    assert done.state == "failed"
    assert "PLATFORM.AUTHENTICATION_INVALID" in done.error
    assert (await integration.state()).problem is None  # that is for its polls to find out


@pytest.mark.parametrize("deleted", [True, False])
async def test_an_integration_that_is_deleted_or_moves_meanwhile_is_not_sent_on(
    scripted, context, subscribe, hook, services, deleted
):
    integration = await new_integration(context, scripted.base_url)
    scripted.answer = says(200, page(["a", "b"]))
    await integration.turn()
    harness = await subscribe()
    asked = len(scripted.asked)
    scripted.answer = says(200, page(["a"], "next"))
    real = services.replays.feed

    async def feed(*arguments):
        status = await real(*arguments)
        if len(scripted.asked) == asked + 1:
            services.replays.feed = real
            scripted.answer = says(200, page(["a", "b"]))
            if deleted:
                await services.integrations.delete(integration.id)
            else:
                await services.integrations.update(
                    integration.id,
                    lambda old: msgspec.structs.replace(old, upstream_id="workday:other"),
                )
        return status

    services.replays.feed = feed
    replay = await ask(harness)
    await harness.turn()
    if deleted:
        done = await progress(harness, replay)
        assert (done.state, done.delivered) == ("failed", 1)
        assert "it was deleted" in done.error
        return
    assert (await progress(harness, replay)).state == "running"
    assert len(scripted.asked) == asked + 1
    await integration.turn()
    done = await finish(harness, replay)
    assert (done.state, hook.courses()) == ("completed", ["a", "a", "b"])


async def test_a_refused_cursor_begins_the_integration_anew_once(
    scripted, context, subscribe, hook, services
):
    integration = await new_integration(context, scripted.base_url)
    scripted.answer = says(200, page(["a", "b"]))
    await integration.turn()
    harness = await subscribe()

    refusals = 1

    async def answer(request):
        nonlocal refusals
        if "cursor" not in request.query:
            return await says(200, page(["a"], "next"))(request)
        if refusals:
            refusals -= 1
            return await refuses(400, "PLATFORM.INPUT_INVALID")(request)
        return await says(200, page(["b"]))(request)

    scripted.answer = answer
    done = await finish(harness, await ask(harness))
    assert (done.state, done.delivered) == ("completed", 3)
    refusals = 9
    done = await finish(harness, await ask(harness))
    assert done.state == "failed"
    assert "PLATFORM.INPUT_INVALID" in done.error
    scripted.answer = says(200, page(["a"], "next"))
    done = await finish(harness, await ask(harness))
    assert "repeats pages" in done.error


@SMALL
async def test_an_upstream_that_fails_is_tried_again_and_given_up_at_last(
    register, subscribe, hook, sandbox, monkeypatch
):
    await baselined(register)
    harness = await subscribe()
    await sandbox.fault("error", code="REMOTE.SERVICE_UNAVAILABLE", times=2)
    replay = await ask(harness)
    await harness.turn()
    stands = await progress(harness, replay)
    assert stands.state == "running"
    assert await harness.next_turn_at() > await harness.now()
    done = await finish(harness, replay)
    assert (done.state, done.delivered) == ("completed", 30)
    monkeypatch.setattr("service.domain.replay.backfill.PATIENCE_MS", -1)
    await sandbox.fault("error", code="REMOTE.SERVICE_UNAVAILABLE")
    done = await finish(harness, await ask(harness))
    assert done.state == "failed"


@SMALL
async def test_it_keeps_to_the_budget_and_leaves_the_deltas_theirs(
    register, subscribe, hook, services, sandbox
):
    integration = await baselined(register)
    registered, _ = await services.integrations.get(integration.id)
    await services.budgets.note(registered.credential_id, limit=8, remaining=2, reset_seconds=300.0)
    harness = await subscribe()
    replay = await ask(harness)
    await harness.turn()
    assert hook.received == []
    wait = await harness.next_turn_at() - await harness.now()
    assert 200_000 < wait <= 400_000
    stored = await services.redis.hget(keys.replay(harness.id, replay.id), "position")
    slot = read_progress(stored.decode()).slot
    assert slot > 0
    # Live events that wake the outbox do not cost it its place.
    await harness.emit("live")
    await harness.turn()
    assert hook.courses() == ["live"]
    stored = await services.redis.hget(keys.replay(harness.id, replay.id), "position")
    assert read_progress(stored.decode()).slot == slot
    assert (await integration.poll("delta")).state == "completed"


@SMALL
async def test_it_waits_while_polling_is_paused_or_memory_is_short(
    register, subscribe, hook, services, sandbox
):
    await baselined(register)
    harness = await subscribe()
    await services.control.pause("polling")
    replay = await ask(harness)
    await harness.turn()
    assert hook.received == []
    assert 5_000 < await harness.next_turn_at() - await harness.now() <= 15_000
    await services.control.resume("polling")
    asked = len(await sandbox.served())
    limit = await services.redis.admin.config_get("maxmemory")
    await services.redis.admin.config_set("maxmemory", 1)
    services.memory.recent.forget("memory")
    try:
        await harness.turn()
    finally:
        await services.redis.admin.config_set("maxmemory", limit["maxmemory"])
    services.memory.recent.forget("memory")
    assert len(await sandbox.served()) == asked
    assert 5_000 < await harness.next_turn_at() - await harness.now() <= 15_000
    assert (await finish(harness, replay)).delivered == 30


@SMALL
async def test_at_the_memory_limit_a_page_is_fed_whole_or_not_at_all(
    register, subscribe, hook, services
):
    await baselined(register)
    harness = await subscribe()
    replay = await ask(harness)
    limit = await services.redis.admin.config_get("maxmemory")
    feed = services.replays.feed

    async def short(lease, one, stands, part):
        if part.entries:
            await services.redis.admin.config_set("maxmemory", 1)
        return await feed(lease, one, stands, part)

    services.replays.feed = short
    try:
        await harness.turn()
        assert await services.redis.xlen(keys.backfilled(harness.id)) == 0
        assert await services.redis.xlen(keys.replayed(harness.id)) == 0
    finally:
        await services.redis.admin.config_set("maxmemory", limit["maxmemory"])
    services.replays.feed = feed
    services.memory.recent.forget("memory")
    done = await finish(harness, replay)
    assert (done.delivered, len(hook.received)) == (30, 30)


async def test_a_slow_upstream_holds_up_no_live_event(
    scripted, context, subscribe, hook, services, monkeypatch
):
    monkeypatch.setattr("workers.delivery.outbox_turn.TURN_SECONDS", 0.2)
    monkeypatch.setattr("workers.delivery.drain.FEEDING_LOOK_SECONDS", 0.05)
    integration = await new_integration(context, scripted.base_url)
    scripted.answer = says(200, page(["a"]))
    await integration.turn()
    harness = await subscribe()
    asked, answered = asyncio.Event(), asyncio.Event()

    async def answer(request):
        asked.set()
        await answered.wait()
        return await says(200, page(["a"]))(request)

    scripted.answer = answer
    replay = await ask(harness)
    turn = asyncio.create_task(harness.turn())
    await asked.wait()
    await asyncio.sleep(0.3)  # the turn's own time is over
    hook.gate.clear()
    await harness.emit("live")
    await hook.holds(1)  # it is sent while the upstream is still awaited
    hook.gate.set()
    answered.set()
    await turn
    assert hook.courses()[0] == "live"
    done = await finish(harness, replay)
    assert (done.state, hook.courses()) == ("completed", ["live", "a"])


async def test_a_worker_that_stops_does_not_wait_for_the_upstream(
    scripted, context, subscribe, hook, services, monkeypatch
):
    monkeypatch.setattr("workers.delivery.drain.FEEDING_LOOK_SECONDS", 0.05)
    integration = await new_integration(context, scripted.base_url)
    scripted.answer = says(200, page(["a"]))
    await integration.turn()
    harness = await subscribe()
    asked, answered = asyncio.Event(), asyncio.Event()

    async def answer(request):
        asked.set()
        await answered.wait()
        return await says(200, page(["a"]))(request)

    scripted.answer = answer
    replay = await ask(harness)
    turn = asyncio.create_task(harness.turn())
    await asked.wait()
    context.draining.set()
    await asyncio.wait_for(turn, 20)
    context.draining.clear()
    answered.set()
    assert (await progress(harness, replay)).delivered == 0
    done = await finish(harness, replay)
    assert (done.state, hook.courses()) == ("completed", ["a"])


@SMALL
async def test_what_dies_is_listed_and_no_replay_of_the_dead_tries_it_again(
    register, subscribe, hook, services
):
    await baselined(register)
    harness = await subscribe(retry_schedule_seconds=())
    bad = set()

    def answer(event):
        if not bad:
            bad.add(event["data"]["course_id"])
        return 500 if event["data"]["course_id"] in bad else 204

    hook.answer = answer
    done = await finish(harness, await ask(harness))
    assert (done.state, done.delivered, done.dead) == ("completed", 29, 1)
    (dead,) = await harness.deliveries("dead")
    assert dead.attempts[0].replay
    await nothing_is_left(harness)
    replay = Replay(
        id=new_id("rpl"), subscription_id=harness.id, which="dead", end="9999999999999-0"
    )
    await services.replays.create(replay)
    await harness.turn()
    found = await progress(harness, replay)
    assert (found.state, found.queued) == ("completed", 0)
    assert "ask for another backfill" in found.error
    assert len(hook.received) == 30


@SMALL
async def test_events_that_wait_too_long_expire_like_those_of_the_log(
    register, subscribe, hook, services
):
    await baselined(register)
    harness = await subscribe()
    hook.answer = lambda _event: 500
    replay = await ask(harness)
    await harness.turn()
    later = await harness.now() + 1
    await services.retention.trim(
        events_before=later, events_max_bytes=2**40, attempts_before=0, dead_before=0
    )
    assert await services.redis.xlen(keys.backfilled(harness.id)) == 0
    await services.subscriptions.resume(harness.id, 5)
    done = await finish(harness, replay)
    assert (done.state, done.dead) == ("completed", 30)
    assert {one.reason for one in await harness.deliveries("dead")} == {EXPIRED}


@SMALL
async def test_a_paused_subscription_asks_for_nothing_until_it_goes_on(
    register, subscribe, hook, services, sandbox
):
    await baselined(register)
    harness = await subscribe(paused=True)
    replay = await ask(harness)
    asked = len(await sandbox.served())
    await harness.turn()
    assert len(await sandbox.served()) == asked
    await services.subscriptions.resume(harness.id, 5)
    assert (await finish(harness, replay)).delivered == 30


@SMALL
async def test_live_events_of_the_other_replays_are_untouched_by_a_backfill(
    register, subscribe, hook, services
):
    await baselined(register, baseline=Baseline.EMIT)
    harness = await subscribe()
    await finish(harness, await ask(harness))
    end, _ = await services.events.bounds()
    for which, queued in (("all", 30), ("missing", 30)):
        replay = Replay(id=new_id("rpl"), subscription_id=harness.id, which=which, end=end)
        if which == "missing":
            await services.redis.delete(keys.attempts(harness.id), keys.attempts_order(harness.id))
        await services.replays.create(replay)
        await harness.turn()
        assert (await progress(harness, replay)).queued == queued
    assert json.loads(hook.received[0][2])["data"]["initial"]
