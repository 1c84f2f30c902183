from __future__ import annotations

from collections import Counter

import pytest

from service.domain.observability.metrics import RECEIPT, observe
from service.storage.observability.lateness import LatenessStore
from service.storage.redis import keys
from tests.integration.conftest import redis_now

MINUTE = 60_000


def lateness(services) -> LatenessStore:
    return LatenessStore(services.redis, services.counters, services.history)


async def receive(services, *seconds: float) -> None:
    for field, count in sum((observe(RECEIPT, one) for one in seconds), Counter()).items():
        await services.redis.hincrby(await services.counters.key(), field, count)


async def test_receipts_are_those_since_the_oldest_sample_of_the_last_minutes(services):
    store, now = lateness(services), await redis_now(services.redis)
    nothing = await store.read(now, 60, pending=False)
    assert (nothing.window_seconds, nothing.receipts, nothing.receipt_p50_seconds) == (60, 0, None)
    await receive(services, 500, 500)
    await services.history.sample()
    await receive(services, 0.2, 0.2, 0.2)
    late = await store.read(now + 13 * MINUTE, 86_400, pending=False)
    assert (late.receipts, late.window_seconds) == (3, pytest.approx(13 * 60, abs=5))
    assert 0.1 < late.receipt_p50_seconds < late.receipt_p99_seconds < 0.25


async def test_a_sample_of_another_run_of_the_server_is_not_compared_with(services):
    await receive(services, 0.2)
    (stored,) = await _sampled(services)
    other = stored.replace(stored[stored.index(b"run") + 4 :][:8], b"another1")
    await services.redis.delete(keys.HISTORY_MINUTES)
    now = await redis_now(services.redis)
    await services.redis.zadd(keys.HISTORY_MINUTES, {other: now - MINUTE})
    late = await lateness(services).read(now, 120, pending=False)
    assert (late.receipts, late.window_seconds) == (1, 120)


async def _sampled(services) -> list[bytes]:
    await services.history.sample()
    return await services.redis.zrange(keys.HISTORY_MINUTES, 0, -1)


async def test_the_oldest_pending_event_is_of_a_subscription_that_is_sent_to(subscribe, services):
    active, paused = await subscribe(), await subscribe(paused=True)
    store, now = lateness(services), await redis_now(services.redis)
    await paused.emit("a")
    assert (await store.read(now, 60, pending=True)).oldest_pending_at is None
    await active.emit("b")
    await active.emit("c")
    depth = await active.depth()
    assert (await store.read(now, 60, pending=True)).oldest_pending_at == depth.oldest_pending_at
    assert (await store.read(now, 60, pending=False)).oldest_pending_at is None
    await active.turn()
    assert (await store.read(now, 60, pending=True)).oldest_pending_at is None


async def test_the_oldest_of_the_last_complete_polls_is_found_by_kind(services):
    await services.redis.zadd(keys.completed("delta"), {"int_a": 500, "int_b": 900})
    await services.redis.zadd(keys.completed("full"), {"int_a": 100})
    late = await lateness(services).read(1_000, 60, pending=False)
    assert (late.oldest_poll_at, late.oldest_full_poll_at) == (500, 100)
