from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import ResponseError
from structlog.testing import capture_logs

from service.domain.errors import StartError
from service.domain.polling.integration import Integration, IntegrationState, state_of
from service.storage.observability.system_status import Overview
from service.storage.redis import keys
from service.storage.redis.server_info import check_server, read_server
from service.storage.scheduling.schedule import ClaimLimit
from tests.integration.conftest import new_credential

LIMITS = [ClaimLimit("polls", "q1", 10, 10), ClaimLimit("outboxes", "q2", 10, 10)]


# --- pause and resume ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("activity", "claimed"), [("polling", ([], ["sub_a"])), ("delivery", (["int_a"], []))]
)
async def test_nothing_of_what_is_paused_is_claimed(services, redis, activity, claimed):
    await redis.zadd(keys.due("polls"), {"int_a": 0})
    await redis.zadd(keys.due("outboxes"), {"sub_a": 0})
    await services.control.pause(activity)
    polls, outboxes = await services.schedule.claim(LIMITS, 30_000)
    assert (polls.ids, outboxes.ids) == claimed
    await services.control.resume(activity)
    polls, outboxes = await services.schedule.claim(LIMITS, 30_000)
    assert len(polls.ids) + len(outboxes.ids) == 1


async def test_pausing_again_keeps_since_when(services):
    await services.control.pause("polling")
    first = await services.control.paused()
    await services.control.pause("polling", "delivery")
    assert (await services.control.paused())["polling"] == first["polling"]
    assert await services.control.is_paused("delivery")
    await services.control.resume("polling", "delivery")
    assert await services.control.paused() == {}
    assert not await services.control.is_paused("polling")


async def test_a_full_server_is_paused_and_resumed_too(services, redis):
    await redis.config_set("maxmemory", 1)
    try:
        await services.control.pause("polling", "delivery")
        assert {*await services.control.paused()} == {"polling", "delivery"}
        await services.control.resume("polling", "delivery")
    finally:
        await redis.config_set("maxmemory", 0)
    assert await services.control.paused() == {}


async def test_a_poll_under_way_stops_at_its_next_page_and_is_resumed(
    register, context, services, monkeypatch
):
    integration = await register()
    fetch, served = services.upstream.fetch_page, []

    async def fetch_then_pause(*args):
        page = await fetch(*args)
        served.append(page)
        if len(served) == 1:
            await services.control.pause("polling")
        return page

    monkeypatch.setattr(services.upstream, "fetch_page", fetch_then_pause)
    await integration.turn()
    assert len(served) == 1
    assert not (await integration.state()).baselined
    await services.control.resume("polling")
    await integration.turn()
    state = await integration.state()
    assert (len(served), state.baselined, state.course_count) == (3, True, 600)


async def test_a_poll_enqueued_before_the_pause_asks_the_upstream_for_nothing(
    register, services, sandbox
):
    from workers.polling.poll import poll_batch

    integration = await register()
    claim = await integration.claim()
    await services.control.pause("polling")
    await poll_batch(integration.context, [(integration.id, claim)])
    assert await sandbox.served() == []
    assert await services.redis.zscore(keys.due("polls"), integration.id) is not None


async def test_an_outbox_under_way_sends_nothing_more_and_keeps_what_it_holds(
    subscribe, hook, services, monkeypatch
):
    from workers.delivery import send_permissions

    monkeypatch.setattr(send_permissions, "REFRESH_SECONDS", 0.0)
    harness = await subscribe(max_concurrency=1)
    await harness.emit(*(f"c{number}" for number in range(10)))
    hook.gate.clear()
    turn = asyncio.create_task(harness.turn())
    await hook.holds(1)
    await services.control.pause("delivery")
    hook.gate.set()
    await turn
    assert len(hook.received) == 1
    assert (await harness.depth()).pending == 9
    assert await services.redis.zscore(keys.due("outboxes"), harness.id) is not None
    await services.control.resume("delivery")
    await harness.turn()
    assert len(hook.received) == 10


# --- what is counted ----------------------------------------------------------------------------


async def _recount(services) -> dict[str, int]:
    stored, _ = await services.integrations.page(100)
    counted = dict.fromkeys((f"state:{state}" for state in IntegrationState), 0)
    for integration, polling in stored:
        counted[f"state:{state_of(integration, polling)}"] += 1
    return counted


async def _counted(services) -> dict[str, int]:
    _, totals = await services.counters.read()
    return {f"state:{state}": totals.get(f"state:{state}", 0) for state in IntegrationState}


async def test_integrations_are_counted_by_state_through_all_that_changes_it(
    register, sandbox, services
):
    def paused(value: bool):
        return lambda one: Integration(
            **{field: getattr(one, field) for field in one.__struct_fields__} | {"paused": value}
        )

    async def agree(state: str) -> None:
        assert await _counted(services) == await _recount(services)
        (stored,) = await services.integrations.get_many([integration.id])
        assert state_of(*stored) == state

    integration = await register()
    await agree("pending")
    await integration.turn()
    await agree("active")
    completed = [keys.completed("delta"), keys.completed("full")]
    assert [await services.redis.zcard(key) for key in completed] == [1, 1]
    await services.integrations.update(integration.id, paused(True))
    await agree("paused")
    assert [await services.redis.zcard(key) for key in completed] == [0, 0]
    await services.integrations.update(integration.id, paused(False))
    await agree("active")
    await sandbox.change({"op": "delete", "count": 400})
    await integration.poll("delta")
    await agree("review")
    assert [await services.redis.zcard(key) for key in completed] == [1, 1]
    await sandbox.fault("error", code="PLATFORM.AUTHENTICATION_INVALID")
    await integration.poll("delta")
    await agree("error")
    assert [await services.redis.zcard(key) for key in completed] == [0, 0]
    await sandbox.heal()
    await integration.poll("delta")
    await agree("review")
    _stored, state = await services.integrations.get(integration.id)
    review = await services.reviews.get(integration.id, state.epoch)
    await services.reviews.decide(integration.id, state.epoch, review.version, "publish")
    await integration.turn()
    await agree("active")
    credential = await new_credential(services, "http://127.0.0.1:9/v1")
    await services.integrations.update(
        integration.id,
        lambda one: Integration(
            **{field: getattr(one, field) for field in one.__struct_fields__}
            | {"credential_id": credential}
        ),
    )
    await agree("pending")
    await services.integrations.delete(integration.id)
    assert set((await _counted(services)).values()) == {0}


async def test_a_silent_scheduler_is_forgotten_once_another_has_its_turn(services, redis):
    await redis.zadd(keys.SCHEDULERS, {"gone": 1})
    overview = Overview(redis)
    assert await overview.schedulers() == [("gone", 1)]
    await services.schedule.claim(LIMITS, 30_000, "alive")
    assert [name for name, _ in await overview.schedulers()] == ["alive"]


# --- the server at start ------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_server_that_evicts_is_refused_at_start(redis, valkey_url, policy):
    await redis.config_set("maxmemory-policy", policy)
    try:
        with pytest.raises(StartError, match=rf"evicts by {policy}.*noeviction"):
            await check_server(valkey_url)
    finally:
        await redis.config_set("maxmemory-policy", "noeviction")
    await check_server(valkey_url)


async def test_a_server_without_persistence_is_warned_of_and_used(redis, valkey_url):
    before = await redis.config_get("appendonly", "save")
    await redis.config_set("appendonly", "no")
    await redis.config_set("save", "")
    try:
        with capture_logs() as warned:
            await check_server(valkey_url)
        assert "persists nothing" in warned[0]["reason"]
        assert (await read_server(redis)).persistence == "none"
    finally:
        for name, value in before.items():
            await redis.config_set(name, value)


async def test_a_server_that_hides_its_configuration_is_used(redis, monkeypatch):
    async def refuse(*_args, **_kwargs):
        raise ResponseError("unknown command 'CONFIG'")

    monkeypatch.setattr(redis, "config_get", refuse)
    assert (await read_server(redis)).snapshots is None


async def test_a_server_that_does_not_answer_does_not_stop_the_start():
    await check_server("redis://127.0.0.1:1/0")
