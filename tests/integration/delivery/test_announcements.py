"""What is told of integrations and subscriptions: when, to whom, and just once."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import msgspec
import pytest
from jsonschema import Draft202012Validator
from litestar.testing import AsyncTestClient
from redis.exceptions import ConnectionError  # noqa: A004 - redis's own name

from service.api.schema.webhooks import webhooks
from service.app import create_app
from service.domain.access.grants import ApiKey, Grant, Scope
from service.domain.delivery.event_types import EVENT_TYPES, OPERATIONAL_EVENT_TYPES
from service.domain.delivery.outcome import Outcome, OutcomeClass
from service.domain.delivery.subscription import Rendering, SubscriptionState, state_of
from service.domain.events.event import EventFilter, render
from service.domain.events.identifiers import position_ms
from service.ids import new_id
from service.storage.delivery.outboxes import EXPIRED
from service.storage.redis import keys
from tests.integration.conftest import redis_now
from tests.integration.delivery.test_outbox_health import park
from tests.integration.delivery.test_replays import ask, log, progress
from workers import upkeep as maintenance

FAILED = Outcome(kind=OutcomeClass.STATUS, duration_ms=1, status=500, connect_ms=0)


async def told(services, prefix: str = "subscription.") -> list[tuple[str, dict]]:
    """The operational events in the log, with their data."""
    events, _ = await services.events.read(None, 10_000)
    return [
        (event.type, json.loads(render(event, Rendering.FULL))["data"])
        for event in events
        if event.type.startswith(prefix)
    ]


async def as_documented(services) -> None:
    """Every operational event in the log is as the OpenAPI document has it, in every format."""
    documented = {name: item.post.request_body.content for name, item in webhooks().items()}
    events, _ = await services.events.read(None, 10_000)
    for event in events:
        if event.course_id:
            continue
        for rendering in Rendering:
            media = "json" if rendering.format == "standard" else "cloudevents+json; charset=utf-8"
            schema = documented[event.type][f"application/{media}"].schema
            body = json.loads(render(event, rendering))
            Draft202012Validator(schema).validate(body)
            assert body["data"].keys() == schema["properties"]["data"]["properties"].keys()


async def own_key(services) -> str:
    key = ApiKey(
        id=new_id("key"),
        name="k",
        scope=Scope.SUBSCRIBER,
        created_at=1,
        updated_at=1,
        grant=Grant(integration_ids=("int_x",)),
    )
    await services.api_keys.create(key)
    return key.id


@pytest.fixture
async def watchers(services, subscribe):
    """Outboxes that name every event there is: the operator's, and those of two owners."""
    mine, other = await own_key(services), await own_key(services)
    return {
        owner: await subscribe(
            owner=owner, event_types=EVENT_TYPES, integration_ids=("int_x",), labels={"a": "b"}
        )
        for owner in (None, mine, other)
    }


async def heard(watcher) -> list[str]:
    """The types of what is on a watcher's outbox."""
    entries = await watcher.services.outboxes.read(watcher.id, "-", 1_000)
    events = await watcher.services.events.get_many([one.event_position for one in entries])
    return [event.type for event in events]


# --- what becomes of a subscription -------------------------------------------------------------


async def test_an_outbox_that_is_parked_and_recovers_says_so_once_each(
    subscribe, hook, services, watchers
):
    harness = await subscribe(description="the tenant's")
    await park(harness, hook)
    for _ in range(3):  # probes that fail say nothing new
        harness.pass_time(361)
        await harness.turn()
    ((name, said),) = await told(services)
    assert (name, said["subscription_id"]) == ("subscription.parked", harness.id)
    assert (said["description"], said["owner"]) == ("the tenant's", None)
    assert (said["last_outcome"], said["last_status"]) == ("status", 500)
    assert said["failures"] >= 10
    assert hook.url not in json.dumps(said)

    hook.answer = lambda _event: 204
    harness.pass_time(361)
    await harness.turn()
    assert [name for name, _ in await told(services)] == [
        "subscription.parked",
        "subscription.recovered",
    ]
    assert (await told(services))[1][1]["by"] == "delivery"
    assert await heard(watchers[None]) == ["subscription.parked", "subscription.recovered"]
    counters, _ = await services.counters.read()
    assert counters["events_total|subscription.parked"] == 1
    assert counters["events_total|subscription.recovered"] == 1
    await as_documented(services)


async def test_a_subscription_that_is_disabled_and_resumed_says_so_once_each(
    subscribe, hook, services
):
    harness = await subscribe(max_concurrency=1)
    hook.answer = lambda _event: 410
    await harness.emit("c1", "c2")
    await harness.turn()
    ((name, said),) = await told(services)
    assert (name, said["reason"]) == ("subscription.disabled", "the receiver answered 410 Gone")
    for _ in range(2):  # the second has nothing to end
        await services.subscriptions.resume(harness.id, 1)
    assert [(name, one.get("was"), one.get("by")) for name, one in await told(services)] == [
        ("subscription.disabled", None, None),
        ("subscription.recovered", "disabled", "resume"),
    ]
    await as_documented(services)


async def test_a_parked_outbox_that_is_resumed_has_recovered_and_one_that_is_disabled_has_not(
    subscribe, hook, services
):
    harness = await subscribe()
    await park(harness, hook)
    await services.subscriptions.resume(harness.id, 1)
    assert [(name, one.get("was")) for name, one in await told(services)] == [
        ("subscription.parked", None),
        ("subscription.recovered", "parked"),
    ]
    await park(harness, hook, courses=2)
    hook.answer = lambda _event: 410
    harness.pass_time(361)
    await harness.turn()
    assert [name for name, _ in (await told(services))[2:]] == [
        "subscription.parked",
        "subscription.disabled",
    ]
    _, totals = await services.counters.read()
    assert (totals["outbox:parked"], totals["outbox:disabled"]) == (0, 1)


async def test_what_happens_is_told_to_the_operator_and_the_owner_and_never_to_itself(
    subscribe, hook, services, watchers
):
    _, mine, other = watchers
    harness = await subscribe(owner=mine, max_concurrency=1, event_types=EVENT_TYPES)
    await services.api_keys.update(
        mine, lambda key: msgspec.structs.replace(key, grant=Grant(integration_ids=("int_a",)))
    )
    hook.answer = lambda _event: 410
    await harness.emit("c1")
    await harness.turn()
    assert await heard(watchers[None]) == ["subscription.disabled"]
    assert await heard(watchers[mine]) == ["subscription.disabled"]
    assert await heard(watchers[other]) == []
    assert await heard(harness) == ["course.updated"]  # what was answered with 410
    (entry,) = await services.outboxes.read(watchers[mine].id, "-", 10)
    assert entry.order_key == harness.id
    # Nor does an event about the operator's own reach an owner.
    await watchers[None].emit("c2")
    await watchers[None].turn()
    assert len(await heard(watchers[mine])) == 1
    # It is pulled by the same.
    for owner, seen in ((mine, 1), (other, 0)):
        events, _ = await services.events.read(
            None, 100, EventFilter(grant=await services.api_keys.grant_of(owner))
        )
        ours = [one for one in events if one.type.startswith("subscription.")]
        assert len(ours) == seen


async def test_it_is_pulled_and_streamed_by_the_operator_and_the_owner_alone(
    subscribe, hook, services
):
    tokens = {}
    for scope, grant in (
        (Scope.SUBSCRIBER, Grant(integration_ids=("int_x",))),
        (Scope.READ, None),
        ("other", Grant(integration_ids=("int_a",))),
    ):
        key = ApiKey(
            id=new_id("key"),
            name="k",
            scope=Scope.SUBSCRIBER if scope == "other" else scope,
            created_at=1,
            updated_at=1,
            grant=grant,
        )
        tokens[scope] = await services.api_keys.create(key)
        if scope is Scope.SUBSCRIBER:
            owner = key.id
    harness = await subscribe(owner=owner, event_types=("subscription.disabled",))
    await services.api_keys.update(
        owner, lambda key: msgspec.structs.replace(key, grant=Grant(integration_ids=("int_a",)))
    )
    await harness.emit("c1")
    hook.answer = lambda _event: 410
    await harness.turn()
    events, _ = await services.events.read(None, 10)
    (disabled,) = [one for one in events if one.type == "subscription.disabled"]
    settings = msgspec.structs.replace(services.settings, admin_token="t" * 32)
    async with AsyncTestClient(create_app(settings)) as client:
        for scope, visible in ((Scope.SUBSCRIBER, True), (Scope.READ, True), ("other", False)):
            headers = {"authorization": f"Bearer {tokens[scope]}"}
            page = (await client.get("/v1/events", headers=headers)).json()
            ids = [item["data"]["event_id"] for item in page["items"]]
            assert (disabled.id in ids) == visible
            one = await client.get(f"/v1/events/{disabled.id}", headers=headers)
            assert (one.status_code == 200) == visible
        # Nor can it be sent to the subscription that it is about.
        headers = {"authorization": f"Bearer {tokens[Scope.SUBSCRIBER]}"}
        again = await client.post(
            f"/v1/events/{disabled.id}/redeliver",
            json={"subscription_id": harness.id},
            headers=headers,
        )
        assert again.status_code == 422
        assert again.json()["errors"][0]["field"] == "subscription_id"


async def test_an_outbox_that_begins_in_the_past_is_told_of_others_and_not_of_itself(
    subscribe, hook, services
):
    first, second = [await subscribe(max_concurrency=1) for _ in range(2)]
    hook.answer = lambda _event: 410
    for harness in (first, second):
        await harness.emit("c1")
        await harness.turn()
    watcher = msgspec.structs.replace(
        await first.subscription(), id=new_id("sub"), event_types=OPERATIONAL_EVENT_TYPES
    )
    await services.backlog.create(watcher, [hook.secret], {}, None)
    assert [one.order_key for one in await services.outboxes.read(watcher.id, "-", 9)] == [
        first.id,
        second.id,
    ]
    itself = msgspec.structs.replace(watcher, id=new_id("sub"))
    entries = await services.redis.xrange(keys.EVENTS)
    for position, fields in entries:  # as if one of them were about the new one
        if first.id.encode() in fields[b"m"]:
            await services.redis.xdel(keys.EVENTS, position)
            fields[b"m"] = fields[b"m"].replace(first.id.encode(), itself.id.encode())
            await services.redis.xadd(keys.EVENTS, fields)
    await services.backlog.create(itself, [hook.secret], {}, None)
    assert [one.order_key for one in await services.outboxes.read(itself.id, "-", 9)] == [second.id]


async def test_a_subscription_made_meanwhile_is_told(subscribe, hook, services):
    harness = await subscribe(max_concurrency=1)
    await services.matchers.current(fresh=True)
    watcher = await subscribe(event_types=("subscription.disabled",))  # not in that snapshot
    hook.answer = lambda _event: 410
    await harness.emit("c1")
    await harness.turn()
    assert await heard(watcher) == ["subscription.disabled"]


async def test_it_is_recorded_once_though_the_answer_of_redis_was_lost(
    subscribe, hook, services, monkeypatch
):
    harness = await subscribe(max_concurrency=1)
    record, calls = services.outboxes.record, 0

    async def lose_the_answer(*arguments):
        nonlocal calls
        calls += 1
        standing = await record(*arguments)
        if calls == 1:
            raise ConnectionError("the answer was lost")
        return standing

    services.outboxes.record = lose_the_answer
    hook.answer = lambda _event: 410
    await harness.emit("c1")
    await harness.turn()
    assert calls >= 2
    assert [name for name, _ in await told(services)] == ["subscription.disabled"]
    assert state_of(await harness.subscription()) is SubscriptionState.DISABLED


async def test_what_is_told_is_pushed_to_who_names_it(subscribe, hook, services):
    harness = await subscribe(max_concurrency=1)
    watcher = await subscribe(event_types=("subscription.disabled",))
    hook.answer = lambda event: 410 if event["type"].startswith("course.") else 204
    await harness.emit("c1")
    await harness.turn()
    assert await watcher.next_turn_at() is not None
    await watcher.turn()
    _, event, _ = hook.received[-1]
    assert (event["type"], event["data"]["subscription_id"]) == (
        "subscription.disabled",
        harness.id,
    )
    assert (await watcher.depth()).pending == 0


# --- deliveries that die ------------------------------------------------------------------------


async def test_a_flood_of_dead_deliveries_is_one_event_and_every_one_is_counted(
    subscribe, hook, services, context, watchers
):
    harness = await subscribe(retry_schedule_seconds=())
    hook.answer = lambda _event: 500
    await harness.emit(*(f"c{number}" for number in range(9)))
    await harness.turn()
    assert await told(services) == []  # told with others, by maintenance
    oldest, newest = [
        one.position for one in (await harness.deliveries("dead"))[:: len("12345678")]
    ]
    await maintenance.run(context)
    ((name, said),) = await told(services)
    assert (name, said["subscription_id"]) == ("subscription.deliveries_dead", harness.id)
    assert said["deliveries"] == 9
    assert said["reasons"] == [
        {"reason": "1 attempts failed, the last with status 500", "deliveries": 9}
    ]
    assert said["first_event_at"] <= said["last_event_at"]
    assert oldest < newest
    assert await heard(watchers[None]) == ["subscription.deliveries_dead"]
    await maintenance.run(context)  # nothing new
    assert len(await told(services)) == 1
    await as_documented(services)
    counters, totals = await services.counters.read()
    assert counters["deliveries_total|dead"] == totals["dead"] == 9


async def test_deaths_are_told_by_one_maintenance_of_several_at_once(
    subscribe, hook, services, monkeypatch
):
    harness = await subscribe(retry_schedule_seconds=())
    hook.answer = lambda _event: 500
    await harness.emit("c1", "c2", "c3")
    await harness.turn()
    all_have_read, current = asyncio.Barrier(4), services.matchers.current

    async def wait_for_the_others(**fields):
        await all_have_read.wait()
        return await current(**fields)

    monkeypatch.setattr(services.matchers, "current", wait_for_the_others)
    told_of = await asyncio.gather(*(services.dead_letter_notices.announce() for _ in range(4)))
    assert sum(told_of) == 1
    assert [said["deliveries"] for _, said in await told(services)] == [3]
    assert await services.redis.exists(keys.outbox_unannounced(harness.id)) == 0


async def test_who_cannot_be_told_of_others_troubles_is_no_trouble_to_be_told(
    subscribe, hook, services
):
    """Or two that tell each other that they are dead would never come to an end."""
    harness = await subscribe(retry_schedule_seconds=(), max_concurrency=1)
    watcher = await subscribe(
        event_types=("subscription.deliveries_dead",), retry_schedule_seconds=()
    )
    hook.answer = lambda _event: 500
    await harness.emit("c1")
    await harness.turn()
    assert await services.dead_letter_notices.announce() == 1
    await watcher.turn()
    assert (await watcher.depth()).dead == 1
    assert await services.dead_letter_notices.announce() == 0


@pytest.mark.parametrize("state", ["active", "paused", "disabled", "parked"])
@pytest.mark.parametrize("how", ["age", "bytes"])
async def test_what_outlives_the_retention_is_dead_counted_and_told_whatever_the_outbox_is(
    subscribe, hook, services, context, state, how
):
    watcher = await subscribe(event_types=OPERATIONAL_EVENT_TYPES)
    harness = await subscribe(max_concurrency=1)
    if state == "parked":
        await park(harness, hook, courses=3)
    await harness.emit(*(f"d{number:02}" for number in range(30)))
    if state == "paused":
        await services.subscriptions.update(
            harness.id, lambda old: msgspec.structs.replace(old, paused=True)
        )
    if state == "disabled":
        hook.answer = lambda _event: 410
        await harness.turn()
    pending = (await harness.depth()).pending
    assert pending >= 30
    last, _ = await services.events.bounds()
    settings = services.settings
    if how == "age":
        await services.retention.trim(
            events_before=await redis_now(services.redis) + 1_000,
            events_max_bytes=settings.event_log_max_bytes,
            attempts_before=0,
            dead_before=0,
        )
    else:
        await services.retention.trim(
            events_before=0, events_max_bytes=1, attempts_before=0, dead_before=0
        )
    _, trimmed = await services.events.bounds()
    assert trimmed == last
    await services.dead_letter_notices.announce()

    depth = await harness.depth()
    assert (depth.pending, depth.dead) == (0, pending)
    dead = await harness.deliveries("dead")
    assert {one.reason for one in dead} <= {EXPIRED}
    (said,) = [one for name, one in await told(services) if name.endswith("deliveries_dead")]
    assert said["deliveries"] == pending
    assert said["reasons"] == [{"reason": EXPIRED, "deliveries": pending}]
    counters, totals = await services.counters.read()
    assert counters["deliveries_total|dead"] >= pending
    assert totals["dead"] >= pending
    # What was told before of it is gone from the log too, and dead on the watcher's outbox.
    assert (await heard(watcher))[-1] == "subscription.deliveries_dead"
    await as_documented(services)


async def test_a_replay_whose_events_are_trimmed_under_it_ends_and_says_so(
    subscribe, hook, services
):
    harness = await subscribe()
    await harness.emit(*(f"c{number}" for number in range(5)))
    await harness.turn()
    first, *_ = await log(harness)
    since = position_ms(first.position) - 5
    asked = await ask(harness, since=since, start=str(since))
    await services.retention.trim(
        events_before=await redis_now(services.redis) + 1_000,
        events_max_bytes=1 << 30,
        attempts_before=0,
        dead_before=0,
    )
    await harness.turn()
    done = await progress(harness, asked)
    assert (done.state, done.delivered) == ("completed", 0)
    assert "trimmed by the retention" in done.error


async def test_what_is_being_replayed_when_its_events_are_trimmed_is_dead_and_told(
    subscribe, hook, services
):
    harness = await subscribe(max_concurrency=1)
    await harness.emit("c1", "c2", "c3")
    await harness.turn()
    hook.answer = lambda _event: 503
    await ask(harness)
    await harness.turn()  # fed, and held by the subscriber
    await services.retention.trim(
        events_before=await redis_now(services.redis) + 1_000,
        events_max_bytes=1 << 30,
        attempts_before=0,
        dead_before=0,
    )
    await services.subscriptions.resume(harness.id, 1)
    await harness.turn()
    assert (await harness.depth()).dead == 3
    assert await services.dead_letter_notices.announce() == 1
    assert (await told(services))[-1][1]["reasons"] == [{"reason": EXPIRED, "deliveries": 3}]


# --- what becomes of an integration -------------------------------------------------------------


@pytest.mark.parametrize("sandbox", [20], indirect=True)
async def test_trouble_that_needs_a_person_is_told_when_it_begins_and_when_it_is_over(
    register, sandbox, services, subscribe
):
    integration = await register()
    watcher = await subscribe(event_types=OPERATIONAL_EVENT_TYPES)
    await integration.turn()
    await sandbox.fault("error", code="PLATFORM.AUTHENTICATION_INVALID")
    for _ in range(3):
        await integration.turn()
    await sandbox.heal()
    await sandbox.fault("error", code="PLATFORM.INTEGRATION_NOT_FOUND")
    await integration.turn()  # another trouble, and no end of it
    await sandbox.heal()
    await integration.turn()
    await integration.turn()
    names = [name for name, _ in await told(services, "integration.")]
    assert names == [
        "integration.baseline_completed",
        "integration.error",
        "integration.recovered",
    ]
    assert await heard(watcher) == names
    await as_documented(services)
    counters, totals = await services.counters.read()
    assert counters["events_total|integration.error"] == 1
    assert counters["events_total|integration.baseline_completed"] == 1
    assert totals["pending"] == 3


@pytest.mark.parametrize("sandbox", [20], indirect=True)
async def test_what_passes_by_itself_is_not_told(register, sandbox, services):
    integration = await register()
    await integration.turn()
    await sandbox.fault("error", status=503)
    await integration.turn()
    await sandbox.heal()
    await integration.turn()
    assert Counter(name for name, _ in await told(services, "integration.")) == {
        "integration.baseline_completed": 1
    }
