from __future__ import annotations

import asyncio

import pytest

from service.domain.delivery.subscription import Subscription
from service.domain.events.identifiers import position_ms, sort_key
from service.ids import new_id
from service.storage.redis import keys


async def totals(harness) -> dict[str, int]:
    found = await harness.services.redis.hgetall(keys.TOTALS)
    return {name.decode(): int(value) for name, value in found.items()}


async def outbox(services, subscription_id) -> list[str]:
    return [entry.position for entry in await services.outboxes.read(subscription_id, "-", 1_000)]


async def log(services) -> list:
    events, _ = await services.events.read(None, 10_000)
    return events


# --- skipping ---------------------------------------------------------------------------------


async def test_pending_deliveries_are_skipped_up_to_a_time(subscribe, hook):
    harness = await subscribe()
    await harness.emit("c1", "c2", "c1", "c3")
    services = harness.services
    for number, position in enumerate(await outbox(services, harness.id)):
        await services.redis.xdel(keys.outbox(harness.id), position)
        await services.redis.xadd(
            f"{keys.outbox(harness.id)}:copy",
            {"k": f"c{number}", "r": "f"},
            id=f"{number + 1}000-0",
        )
    await services.redis.rename(f"{keys.outbox(harness.id)}:copy", keys.outbox(harness.id))

    assert await services.outboxes.skip(harness.id, 3_000) == 3
    assert await outbox(services, harness.id) == ["4000-0"]
    assert (await totals(harness))["pending"] == 1
    assert await services.outboxes.skip(harness.id, 3_000) == 0
    assert await services.outboxes.skip(harness.id, None) == 1
    assert await services.outboxes.skip(harness.id, None) == 0
    counters, _ = await services.counters.read()
    assert counters["deliveries_total|skipped"] == 4


async def test_a_skipped_head_that_has_failed_frees_its_course(subscribe, hook):
    harness = await subscribe()
    hook.answer = lambda _event: 500
    await harness.emit("c1", "c1")
    await harness.turn()
    (first, _) = await outbox(harness.services, harness.id)
    await harness.services.redis.xdel(
        keys.outbox(harness.id), (await outbox(harness.services, harness.id))[1]
    )
    assert await harness.services.outboxes.skip(harness.id, position_ms(first)) == 1
    assert await harness.services.redis.zcard(keys.outbox_retries(harness.id)) == 0
    assert await harness.services.redis.hlen(keys.outbox_failing(harness.id)) == 0
    hook.answer = lambda _event: 204
    await harness.emit("c1")
    await harness.turn()
    assert len(hook.received) == 2
    assert (await harness.depth()).dead == 0


async def test_a_sender_at_work_sends_no_more_of_what_was_skipped(subscribe, hook):
    harness = await subscribe(max_concurrency=1)
    await harness.emit(*(f"c{number}" for number in range(30)))
    hook.gate.clear()
    turn = asyncio.create_task(harness.turn())
    await hook.holds(1)
    assert await harness.services.outboxes.skip(harness.id, None) == 30
    hook.gate.set()
    await turn
    assert len(hook.received) < 30  # what began before the first answer was recorded
    assert (await harness.depth()).pending == 0
    assert (await totals(harness))["pending"] == 0


# --- beginning in the past --------------------------------------------------------------------


def a_subscription(**fields) -> Subscription:
    return Subscription(
        **({"id": new_id("sub"), "url": "http://x", "created_at": 1, "updated_at": 1} | fields)
    )


async def test_an_outbox_begins_with_what_the_log_holds_and_goes_on_with_what_comes(
    subscribe, services
):
    harness = await subscribe()
    await harness.emit("c1", "c2", "c1")
    late = a_subscription()
    await services.backlog.create(late, ["s"], {}, None)
    assert await outbox(services, late.id) == [event.position for event in await log(services)]
    assert await outbox(services, late.id) == await outbox(services, harness.id)
    assert (await totals(harness))["pending"] == 6
    assert await services.redis.admin.ttl(keys.outbox(late.id)) == -1
    assert await services.redis.zscore(keys.due("outboxes"), late.id) is not None
    ours, theirs = [
        {entry.order_key for entry in await services.outboxes.read(one, "-", 9)}
        for one in (late.id, harness.id)
    ]
    assert len(ours) == len(theirs) == 2


async def test_an_outbox_may_begin_at_a_time_and_holds_what_matches_alone(subscribe, services):
    harness = await subscribe()
    await harness.emit("c1", "c2")
    (_, second) = await log(services)
    since = position_ms(second.position)
    for event_types, expected in ((None, True), (("course.deleted",), False)):
        late = a_subscription(event_types=event_types)
        await services.backlog.create(late, ["s"], {}, since)
        found = await outbox(services, late.id)
        assert (second.position in found) is expected
        assert all(position_ms(position) >= since for position in found)
    changed = a_subscription(changed=("provider",))
    await services.backlog.create(changed, ["s"], {}, None)
    assert await outbox(services, changed.id) == []
    assert await services.redis.exists(keys.outbox(changed.id)) == 0


async def test_events_committed_while_an_outbox_is_filled_are_there_once(subscribe, services):
    harness = await subscribe()
    await harness.emit("c1")
    late = a_subscription()
    stored, interruptions = services.subscriptions.create, 3

    async def create(*arguments, **fields):
        nonlocal interruptions
        if interruptions:
            interruptions -= 1
            await harness.emit("c1", "c2")
        return await stored(*arguments, **fields)

    services.subscriptions.create = create
    await services.backlog.create(late, ["s"], {}, None)
    assert await outbox(services, late.id) == [event.position for event in await log(services)]
    assert len(await outbox(services, late.id)) == 7


async def test_nothing_stays_of_a_creation_that_breaks_off(subscribe, services):
    harness = await subscribe()
    await harness.emit("c1")
    late = a_subscription()

    async def create(*_arguments, **_fields):
        raise ConnectionError

    services.subscriptions.create = create
    with pytest.raises(ConnectionError):
        await services.backlog.create(late, ["s"], {}, None)
    assert 0 < await services.redis.admin.ttl(keys.outbox(late.id)) <= 600
    assert (await totals(harness))["pending"] == 1


# --- the list of dead deliveries --------------------------------------------------------------


async def list_dead(harness, died: dict[str, int]) -> None:
    """Lists deliveries as given up: log position -> ms at which that was."""
    redis = harness.services.redis.admin
    for position, died_at in died.items():
        await redis.zadd(keys.outbox_dead(harness.id), {sort_key(position): 0})
        facts = f"{died_at} 10 f key status 500 after all"
        await redis.hset(keys.outbox_dead_facts(harness.id), sort_key(position), facts)
        await redis.hincrby(keys.TOTALS, "dead", 1)


async def test_dead_deliveries_are_paged_in_the_order_of_their_events(subscribe, services):
    harness = await subscribe()
    positions = ["5-0", *(f"7-{number}" for number in range(25)), "8-2", "8-10", "9-0"]
    await list_dead(harness, dict.fromkeys(positions, 100))
    for count in (1, 2, 3, 7, 40):
        found, after = [], None
        while page := await services.dead.page(harness.id, after, count):
            assert len(page) <= count
            found += page
            after = page[-1].position
        assert [one.position for one in found] == positions
    assert found[0].reason == "status 500 after all"
    assert (found[0].attempts, found[0].rendering, found[0].order_key) == (10, "f", "key")
    missing, there = await services.dead.get_many(harness.id, ["6-0", "8-10"])
    assert missing is None
    assert there.died_at == 100


async def test_dead_deliveries_are_forgotten_by_the_time_of_their_death(
    subscribe, services, monkeypatch
):
    monkeypatch.setattr("service.storage.upkeep.retention.TRIMMED_AT_ONCE", 2)
    harness = await subscribe()
    await list_dead(harness, {"1-0": 90, "2-0": 30, "3-0": 40, "4-0": 95, "5-0": 45, "99-0": 99})
    trimmed = await services.retention.trim(
        events_before=0, events_max_bytes=2**30, attempts_before=0, dead_before=50
    )
    assert trimmed["dead"] == 3
    assert [one.position for one in await services.dead.page(harness.id, None, 9)] == [
        "1-0",
        "4-0",
        "99-0",
    ]
    assert (await totals(harness))["dead"] == 3
    assert (await harness.depth()).dead == 3
