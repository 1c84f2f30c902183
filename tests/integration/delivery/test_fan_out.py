"""One event for many subscriptions: it is read and rendered once for each rendering."""

from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import (
    ConnectionError,  # noqa: A004 - redis's own name
    ResponseError,
)

from service.domain.delivery.subscription import Outbox, Rendering
from service.domain.events.event import render
from service.storage.delivery.outboxes import OutboxDepth
from service.storage.events import event_bodies
from service.storage.redis import keys
from service.storage.scheduling.schedule import ClaimLimit
from workers.delivery.drain import deliver_batch

SUBSCRIPTIONS = 50


@pytest.fixture
def counted(services, monkeypatch):
    """The positions that were read from the log, and the renderings that were made of them."""
    reads, renders = [], []
    get_many = services.events.get_many

    async def count_reads(positions):
        reads.extend(positions)
        await asyncio.sleep(0.05)  # so that others ask while it is being read
        return await get_many(positions)

    def count_renders(event, rendering):
        renders.append((event.id, rendering))
        return render(event, rendering)

    monkeypatch.setattr(services.events, "get_many", count_reads)
    monkeypatch.setattr(event_bodies, "render", count_renders)
    return reads, renders


async def many(subscribe, *renderings):
    """Subscriptions, and the outboxes of all but the first, with the renderings in turn."""
    harnesses = [await subscribe() for _ in range(SUBSCRIPTIONS)]
    outboxes = [
        Outbox(one.id, renderings[number % len(renderings)], True)
        for number, one in enumerate(harnesses)
    ]
    return harnesses, outboxes[1:]


async def deliver_all(context, services):
    (claims,) = await services.schedule.claim(
        [ClaimLimit("outboxes", "q", SUBSCRIPTIONS, 10)], 30_000
    )
    await deliver_batch(context, [(one, claims.token) for one in claims.ids])
    await asyncio.gather(*context.lingering)


async def test_an_event_of_many_subscriptions_is_read_and_rendered_once(
    subscribe, hook, context, services, counted
):
    harnesses, others = await many(subscribe, Rendering.FULL)
    await harnesses[0].emit("c1", others=others)
    await deliver_all(context, services)
    reads, renders = counted
    assert (len(reads), len(renders)) == (1, 1)
    assert len(hook.received) == SUBSCRIPTIONS
    assert len({(identifier, body) for identifier, _, body in hook.received}) == 1


async def test_turns_begin_and_end_together(subscribe, hook, context, services):
    harnesses, others = await many(subscribe, Rendering.FULL)
    await harnesses[0].emit("c1", others=others)
    redis = services.redis.admin
    before = await redis.info("commandstats")
    await deliver_all(context, services)
    after = await redis.info("commandstats")
    scripts = [found["cmdstat_evalsha"]["calls"] for found in (before, after)]
    assert len(hook.received) == SUBSCRIPTIONS
    assert await services.outboxes.depth_many([one.id for one in harnesses]) == (
        [OutboxDepth(0, 0, None)] * SUBSCRIPTIONS
    )
    assert scripts[1] - scripts[0] < SUBSCRIPTIONS  # two for each, if each had its own


@pytest.mark.parametrize(
    ("broken", "received"),
    [(keys.outbox_failing, SUBSCRIPTIONS - 1), (keys.attempts, SUBSCRIPTIONS)],
)
async def test_an_outbox_with_broken_data_disturbs_no_other(
    subscribe, hook, context, services, broken, received
):
    harnesses, others = await many(subscribe, Rendering.FULL)
    await harnesses[0].emit("c1", others=others)
    await services.redis.admin.set(broken(harnesses[7].id), "of another type")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await deliver_all(context, services)
    assert len(hook.received) == received
    depths = await services.outboxes.depth_many([one.id for one in harnesses])
    pending = sum(depth.pending for depth in depths)
    assert pending == SUBSCRIPTIONS - received
    counts, totals = await services.counters.read()
    assert totals["pending"] == pending
    assert counts["deliveries_total|delivered"] == SUBSCRIPTIONS - 1
    assert [depth.pending for depth in depths[8:]] == [0] * (SUBSCRIPTIONS - 8)


async def test_each_rendering_has_its_own_bytes(subscribe, hook, context, services, counted):
    renderings = (Rendering.FULL, Rendering.THIN, Rendering.THIN_CLOUDEVENT)
    harnesses, others = await many(subscribe, *renderings)
    await harnesses[0].emit("c1", others=others)
    await deliver_all(context, services)
    _, renders = counted
    assert {rendering for _, rendering in renders} == set(renderings)
    assert len(renders) == len(renderings)
    assert len({identifier for identifier, _, _ in hook.received}) == 1
    assert len({body for _, _, body in hook.received}) == len(renderings)
    types = {one["content-type"].partition(";")[0] for one in hook.headers}
    assert types == {"application/json", "application/cloudevents+json"}


async def test_a_later_turn_shares_the_bytes_of_an_earlier_one(subscribe, hook, counted):
    first, second = await subscribe(), await subscribe()
    await first.emit("c1", others=[Outbox(second.id, Rendering.FULL, True)])
    await first.turn()
    await second.turn()
    reads, _ = counted
    assert len(reads) == 1
    (one, _, body), (other, _, same) = hook.received
    assert (one, body) == (other, same)


async def test_nothing_is_shared_beyond_a_restart_of_the_server(
    subscribe, hook, services, monkeypatch, counted
):
    """A server that lost its last second may give a position to another event."""
    first, second = await subscribe(), await subscribe()
    await first.emit("c1", others=[Outbox(second.id, Rendering.FULL, True)])
    await first.turn()

    async def key_of_another_run():
        return keys.counters("another")

    monkeypatch.setattr(services.counters, "key", key_of_another_run)
    await second.turn()
    reads, _ = counted
    assert len(reads) == 2


async def test_an_event_that_the_log_has_trimmed_is_not_sent_from_memory(subscribe, services):
    harness = await subscribe()
    await harness.emit("c1", "c2")
    entries = await services.outboxes.read(harness.id, "-", 10)
    assert None not in await services.bodies.get_many(harness.id, entries)
    await services.retention.trim(
        events_before=int(entries[0].position.partition("-")[0]) + 1,
        events_max_bytes=1 << 30,
        attempts_before=0,
        dead_before=0,
    )
    first, second = await services.bodies.get_many(harness.id, entries)
    log = await services.events.get_many([one.position for one in entries])
    assert (first, second is None) == (None, log[1] is None)


async def test_a_turn_that_dies_while_it_reads_fails_none_that_waits_for_the_same(
    subscribe, services, counted
):
    first, second = await subscribe(), await subscribe()
    await first.emit("c1", others=[Outbox(second.id, Rendering.FULL, True)])
    (entry,) = await services.outboxes.read(first.id, "-", 10)
    dying = asyncio.create_task(services.bodies.get_many(first.id, [entry]))
    await asyncio.sleep(0.01)
    waiting = asyncio.create_task(services.bodies.get_many(second.id, [entry]))
    await asyncio.sleep(0.01)
    dying.cancel()
    (event,) = await waiting
    assert event.head.position == entry.position
    assert len(counted[0]) == 1


async def test_a_read_that_fails_fails_all_that_wait_for_it_and_is_made_again(
    subscribe, services, monkeypatch
):
    harness = await subscribe()
    await harness.emit("c1")
    (entry,) = await services.outboxes.read(harness.id, "-", 10)
    get_many = services.events.get_many

    async def fail(_positions):
        await asyncio.sleep(0.01)
        raise ConnectionError("gone")

    monkeypatch.setattr(services.events, "get_many", fail)
    asked = [services.bodies.get_many(harness.id, [entry]) for _ in range(2)]
    failures = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(one) for one in failures] == [ConnectionError, ConnectionError]
    monkeypatch.setattr(services.events, "get_many", get_many)
    (event,) = await services.bodies.get_many(harness.id, [entry])
    assert event is not None
