"""When Redis is nearly full polls wait, so that deliveries can go on."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from service.clock import now_ms
from service.domain.polling.integration import Baseline
from service.storage.redis import keys
from workers.polling.poll import poll_batch


class Room:
    """How much of its memory the server may use, by what it uses now, which is made so much
    that scripts and buffers hardly count."""

    PADDING = 100_000_000

    def __init__(self, services) -> None:
        self.services = services

    async def used(self, share: float) -> None:
        await self.services.redis.admin.setrange("padding", self.PADDING, b"x")
        info = await self.services.redis.info("memory")
        await self._limit(int(info["used_memory"] / share))

    async def enough(self) -> None:
        await self._limit(0)

    async def none(self) -> None:
        await self._limit(1)

    async def _limit(self, limit: int) -> None:
        await self.services.redis.admin.config_set("maxmemory", limit)
        self.services.memory.recent.forget("memory")


@pytest.fixture
async def room(services):
    room = Room(services)
    yield room
    await room.enough()


async def types(integration) -> Counter[str]:
    return Counter(event.type for event in await integration.events())


async def test_above_four_fifths_a_poll_waits_and_says_so_and_goes_on_by_itself(
    register, sandbox, room
):
    integration = await register(baseline=Baseline.EMIT)
    await room.used(0.9)

    await integration.turn()

    shown = await integration.shown()
    assert (shown.state, shown.error.code) == ("pending", "RedisMemory")
    assert not shown.error.attention
    assert "memory" in shown.error.remedy
    assert "Redis uses 9" in shown.error.message
    assert 10 < await integration.due_in() <= 15
    assert await sandbox.served() == []
    await room.enough()
    await integration.turn()
    assert (await integration.shown()).error is None
    assert await types(integration) == {"course.created": 600, "integration.baseline_completed": 1}


async def test_below_four_fifths_polls_go_on(register, room):
    integration = await register()
    await room.used(0.6)
    await integration.turn()
    assert (await integration.state()).baselined


async def test_a_poll_that_fills_the_memory_stops_where_it_is_and_loses_nothing(
    register, sandbox, context, room, monkeypatch
):
    integration = await register(baseline=Baseline.EMIT)
    upstream = context.services.upstream
    fetch = upstream.fetch_page

    async def fetch_and_fill(*arguments):
        upstream.fetch_page = fetch
        await room.used(0.9)
        return await fetch(*arguments)

    upstream.fetch_page = fetch_and_fill
    await integration.turn()
    (waiting,) = await integration.polls()
    assert (waiting.state, waiting.pages) == ("running", 1)
    assert "memory" in waiting.error
    problem = (await integration.state()).problem
    await integration.turn()  # still full: since the first time
    assert (await integration.state()).problem.since == problem.since
    await room.enough()

    await integration.turn()

    (poll,) = await integration.polls()
    assert (poll.id, poll.state) == (waiting.id, "completed")
    assert len(await sandbox.served()) == 3
    assert (await types(integration))["course.created"] == 600


async def test_a_problem_is_over_once_the_poll_gets_on_though_it_is_not_done(
    register, context, room
):
    integration = await register()
    await room.used(0.9)
    await integration.turn()
    await room.enough()
    upstream = context.services.upstream
    fetch = upstream.fetch_page

    async def fetch_and_hand_back(*arguments):
        context.draining.set()
        return await fetch(*arguments)

    upstream.fetch_page = fetch_and_hand_back
    await integration.turn()
    assert (await integration.polls())[0].state == "running"
    assert (await integration.shown()).error is None


async def test_an_integration_that_needs_a_person_still_does_when_memory_is_short(
    register, sandbox, room
):
    integration = await register()
    await sandbox.fault("error", code="PLATFORM.AUTHENTICATION_INVALID")
    await integration.turn()
    await room.used(0.9)
    await integration.turn()
    shown = await integration.shown()
    assert (shown.state, shown.error.code) == ("error", "PLATFORM.AUTHENTICATION_INVALID")
    await room.enough()
    await sandbox.heal()
    await integration.turn()
    assert (await integration.shown()).error is None


async def test_a_poll_asked_for_waits_too_and_is_answered_afterwards(register, room):
    integration = await register()
    await integration.turn()
    await room.used(0.9)
    asked = await integration.services.integrations.request_poll(integration.id, "full", now_ms())
    await integration.turn()
    assert (await integration.state()).requested_id == asked.id
    await room.enough()
    await integration.turn()
    poll = await integration.services.integrations.get_poll(integration.id, asked.id)
    assert (poll.state, poll.error) == ("completed", None)


async def test_a_poll_that_waited_for_too_long_is_ended_and_gives_its_memory_back(
    register, sandbox, room, monkeypatch
):
    """Even if what fills the memory is what the poll has seen."""
    integration = await register()
    await sandbox.fault("html", on="later", times=1)
    await integration.turn()
    await room.used(0.9)
    await integration.turn()
    assert await integration.services.redis.admin.keys("cw:seen:*")
    later = now_ms() + 31 * 60_000
    monkeypatch.setattr("workers.polling.poll.now_ms", lambda: later)
    await integration.turn()
    (poll,) = await integration.polls()
    assert poll.state == "failed"
    assert "memory" in poll.error
    assert not await integration.services.redis.admin.keys("cw:seen:*")


async def test_deliveries_go_on_where_polls_wait(register, room, subscribe, hook):
    integration = await register()
    harness = await subscribe()
    await harness.emit("a", "b", "c")
    await room.used(0.9)
    await integration.turn()
    await harness.turn()
    assert hook.courses() == ["a", "b", "c"]
    assert (await harness.depth()).pending == 0
    assert not (await integration.state()).baselined


async def test_at_the_very_limit_a_turn_still_ends_well(register, context, room):
    """Nothing can be written any more; giving back begins with a removal, and can."""
    integration = await register()
    await integration.services.integrations.request_poll(integration.id, "full", now_ms())
    token = await integration.claim()
    await room.none()

    await poll_batch(context, [(integration.id, token)])

    redis = context.services.redis.admin
    assert await redis.zscore(keys.claimed("polls"), integration.id) is None
    assert not await redis.exists(keys.lease("polls", integration.id))
    assert (await integration.shown()).error.code == "RedisMemory"
    assert 10 < await integration.due_in() <= 15
    await room.enough()
    await integration.turn()
    assert (await integration.state()).baselined


async def test_how_full_it_is_is_not_asked_for_every_page(services):
    asked = 0
    info = services.redis.info

    async def count(*sections):
        nonlocal asked
        asked += 1
        return await info(*sections)

    services.redis.info = count
    shares = await asyncio.gather(*(services.memory.used_share() for _ in range(3)))
    for _ in range(20):
        shares.append(await services.memory.used_share())
    assert asked <= 4
    assert set(shares) == {0.0}  # there is no limit
