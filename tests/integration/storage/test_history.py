"""The history of metrics on a real server."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import msgspec
import pytest
from redis.asyncio import Redis

from service.domain.observability import metrics
from service.domain.observability.history import (
    FAMILIES,
    HOURS,
    MINUTES,
    STORED,
    Period,
    Sample,
    hours_of,
    minutes_of,
    series_at,
)
from service.storage.observability.history import OUTBOXES_LOOKED_AT, History
from service.storage.redis import keys
from service.storage.redis.counters import Counters
from tests.conftest import ValkeyServer, free_port
from tests.integration.conftest import redis_now
from workers.scheduler import sample_history

MINUTE_MS = 250  # in these tests, where another is not needed
HOUR_MS = 60 * 60_000
EVER = 1 << 50


def history_of(redis: Redis, minute_ms: int = MINUTE_MS) -> History:
    return History(redis, Counters(redis), minute_ms)


async def next_minute(history: History) -> Period:
    """Waits until a minute ends, samples it and gives it."""
    await asyncio.sleep(await history.sample() + 0.005)
    await history.sample()
    return (await history.read(MINUTES, 0, EVER))[-1]


async def count(redis: Redis, name: str, by: int = 1) -> None:
    await redis.hincrby(await Counters(redis).key(), name, by)


async def stored(redis: Redis) -> list[tuple[Sample, int]]:
    found = await redis.zrange(keys.HISTORY_MINUTES, 0, -1, withscores=True)
    return [(msgspec.msgpack.decode(one, type=Sample), int(end)) for one, end in found]


async def write(redis: Redis, samples: list[Sample]) -> None:
    encoded = {msgspec.msgpack.encode(one): one.at - one.at % 60_000 for one in samples}
    await redis.zadd(keys.HISTORY_MINUTES, encoded)


async def test_a_sample_holds_what_was_counted_and_what_stood(register, subscribe, services, redis):
    history = history_of(services.redis)
    await next_minute(history)
    integration = await register()
    await integration.turn()
    harness, paused = await subscribe(), await subscribe()
    await harness.emit("c1")
    await harness.turn()
    await harness.emit("c2")
    await paused.emit("c3")
    await services.subscriptions.update(
        paused.id, lambda it: msgspec.structs.replace(it, paused=True)
    )
    samples = [one for one, _ in await stored(redis)]
    await next_minute(history)
    samples.append((await stored(redis))[-1][0])
    # Other minutes may have ended meanwhile.
    minute = minutes_of([samples[0], samples[-1]], samples[-1].at - samples[0].at)[-1]
    found = {
        (one.name, *one.labels.values()): one.values[0]
        for one in series_at([minute.end], [minute], FAMILIES)
    }
    assert found["events_total", "integration.baseline_completed"] == 1
    assert found["records_total", "created"] == 600
    assert found["polls_total", "full", "completed"] == 1
    assert found["attempts_total", "delivered"] == 1
    assert found["deliveries_total", "delivered"] == 1
    assert found["upstream_request_duration_seconds_count",] == 3
    assert found["detection_to_receipt_seconds_count",] == 1
    assert found["detection_to_receipt_seconds", "0.5"] > 0
    assert found["deliveries_pending",] == 2
    assert 0 < found["oldest_pending_age_seconds",] < 60
    assert (found["outboxes", "active"], found["outboxes", "paused"]) == (1, 1)
    assert found["integrations", "active"] == 1
    assert found["redis_memory_used_bytes",] > 1_000_000


async def test_what_is_paused_or_disabled_is_not_the_oldest_pending(subscribe, services, redis):
    paused, disabled = await subscribe(), await subscribe()
    for harness in (paused, disabled):
        await harness.emit("c1")
    history = history_of(services.redis)
    assert (await next_minute(history)).gauges["oldest_pending"] > 0
    await services.subscriptions.update(
        paused.id, lambda it: msgspec.structs.replace(it, paused=True)
    )
    await services.subscriptions.update(
        disabled.id, lambda it: msgspec.structs.replace(it, disabled_reason="gone")
    )
    assert (await next_minute(history)).gauges["oldest_pending"] == 0


async def test_of_many_schedulers_one_samples_each_minute_and_the_others_go_on_when_it_is_killed(
    redis,
):
    async def sampled(minutes: int) -> list[int]:
        async with asyncio.timeout(30):
            while await redis.zcard(keys.HISTORY_MINUTES) < minutes:  # noqa: ASYNC110 - others write
                await asyncio.sleep(MINUTE_MS / 1000)
        return [end for _, end in await stored(redis)]

    stop = asyncio.Event()
    schedulers = [asyncio.create_task(sample_history(history_of(redis), stop)) for _ in range(3)]
    await count(redis, "pages_total")
    before = await sampled(3)
    schedulers[0].cancel()
    schedulers[1].cancel()
    after = await sampled(len(before) + 3)
    stop.set()
    await schedulers[2]
    assert len(after) == len({*after})
    assert all(end % MINUTE_MS == 0 for end in after)


async def count_until_seen(history: History, redis: Redis, by: int) -> None:
    """Counts until a minute shows it. Machines that are slow leave gaps."""
    seen: list[object] = []
    while {"pages_total": {"": by}} not in seen:
        await count(redis, "pages_total", by)
        await next_minute(history)
        seen = [minute.increases for minute in await history.read(MINUTES, 0, EVER)]


@pytest.mark.slow  # starts servers
async def test_a_rollback_of_the_server_is_a_gap_and_no_spike(tmp_path: Path):
    config = {"save": '""', "appendonly": "no"}
    servers = [
        ValkeyServer(port=free_port(), data_dir=tmp_path / name, persist=True, config=config)
        for name in ("old", "new")
    ]
    servers[0].start()
    async with Redis(port=servers[0].port) as redis:
        history = history_of(redis)
        await count_until_seen(history, redis, 5)
        await redis.save()
        shutil.copy(tmp_path / "old/dump.rdb", tmp_path / "new/dump.rdb")
        await count_until_seen(history, redis, 1_000)
    servers[0].stop()
    servers[1].start()
    try:
        async with Redis(port=servers[1].port) as redis:
            last = (await stored(redis))[-1][1]
            history = history_of(redis)
            await count(redis, "pages_total", 7)
            await next_minute(history)
            await count_until_seen(history, redis, 3)
            found = await history.read(MINUTES, 0, EVER)
            assert next(one for one in found if one.end > last).increases is None
            assert {one.increases["pages_total"][""] for one in found if one.increases} == {3, 5}
    finally:
        servers[1].stop()


async def test_a_full_server_is_sampled_too(services, redis):
    hour = await redis_now(redis) // HOUR_MS * HOUR_MS
    await write(redis, [Sample(at=hour - minute * 60_000 + 5, run="r") for minute in range(1, 4)])
    history = history_of(services.redis, 60_000)
    await services.counters.key()
    await redis.config_set("maxmemory", 1)
    try:
        await history.sample()
    finally:
        await redis.config_set("maxmemory", 0)
    assert await redis.zcard(keys.HISTORY_MINUTES) == 4
    assert [one.end for one in await history.read(HOURS, 0, EVER)] == [hour]


async def test_a_sample_is_one_script_that_looks_at_so_many_outboxes_and_no_more(services, redis):
    async with redis.pipeline() as pipeline:
        for number in range(OUTBOXES_LOOKED_AT + 100):
            pipeline.xadd(keys.outbox(f"sub_{number}"), {"k": "k"}, id=f"{number + 1}-1")
            pipeline.zadd(keys.due("outboxes"), {f"sub_{number}": number})
        await pipeline.execute()
    history = history_of(services.redis, 60_000)
    await history.sample()
    await redis.config_resetstat()
    await redis.delete(keys.HISTORY_MINUTES)
    await history.sample()
    spent = await redis.info("commandstats")
    assert spent["cmdstat_evalsha"]["calls"] == 1
    assert spent["cmdstat_xrange"]["calls"] == OUTBOXES_LOOKED_AT
    ((one, _),) = await stored(redis)
    assert one.gauges["oldest_pending"] == pytest.approx(one.at / 1000, rel=1e-6)
    assert {*spent} <= {
        *("cmdstat_evalsha", "cmdstat_info", "cmdstat_config|resetstat", "cmdstat_del"),
        *("cmdstat_zremrangebyscore", "cmdstat_zrangebyscore", "cmdstat_zadd", "cmdstat_pexpire"),
        *("cmdstat_hgetall", "cmdstat_zrange", "cmdstat_xrange", "cmdstat_time"),
    }


# --- hours --------------------------------------------------------------------------------------


async def test_hours_that_have_ended_are_made_of_their_minutes_once(redis):
    hour = (await redis_now(redis) // HOUR_MS - 1) * HOUR_MS
    samples = [
        Sample(
            at=hour + minute * 60_000 + 5,
            run="r",
            counters={"pages_total": {"": (minute + 125) ** 2}},
            gauges={"pending": minute + 125},
        )
        for minute in range(-125, 1)
        if minute not in (-30, -31)
    ]
    await write(redis, samples)
    expected = hours_of(minutes_of(samples))
    history = history_of(redis, 60_000)
    await history.sample()
    found = await history.read(HOURS, 0, hour)
    assert found == expected
    assert [one.minutes for one in found] == [5, 60, 57]
    assert await history.read(HOURS, hour - HOUR_MS, hour) == found[-1:]
    # Another process, or the same hours made by two at once, changes nothing.
    await asyncio.gather(*(history_of(redis, 60_000).make_hours(hour) for _ in range(2)))
    await redis.zpopmax(keys.HISTORY_HOURS)
    await asyncio.gather(*(history_of(redis, 60_000).make_hours(hour) for _ in range(2)))
    assert await history.read(HOURS, 0, hour) == expected


async def test_history_takes_a_few_megabytes_at_most_and_expires(redis):
    hour = await redis_now(redis) // HOUR_MS * HOUR_MS

    def counters(value: int) -> dict[str, dict[str, int]]:
        """Of every series that is declared."""
        found: dict[str, dict[str, int]] = {name: {} for name in STORED}
        for metric in metrics.COUNTERS:
            labels = ["|".join(one) for one in metric.known] or [""]
            found[metric.name] = dict.fromkeys(labels, value)
        for metric in (metrics.UPSTREAM_REQUEST, metrics.RECEIPT):
            found[metric.name] = dict.fromkeys((*map("{:g}".format, metric.bounds), "sum"), value)
        return found

    totals = [metric.total for metric in metrics.TOTALS]
    gauges = dict.fromkeys((*totals, *(f"outbox:{one}" for one in metrics.OUTBOX_STATES)), 10**6)
    await write(
        redis,
        [
            Sample(at=hour - minute * 60_000, run="r" * 8, counters=counters(10**9), gauges=gauges)
            for minute in range(1, MINUTES.kept + 500)
        ],
    )
    hours = [
        Period(end=hour - past * HOUR_MS, minutes=60, increases=counters(10**6), gauges=gauges)
        for past in range(1, HOURS.kept + 100)
    ]
    await redis.zadd(keys.HISTORY_HOURS, {msgspec.msgpack.encode(one): one.end for one in hours})
    history = history_of(redis, 60_000)
    await history.sample()
    assert await redis.zcard(keys.HISTORY_MINUTES) <= MINUTES.kept + 1
    assert await redis.zcard(keys.HISTORY_HOURS) == HOURS.kept
    used = [
        await redis.memory_usage(key, samples=0)
        for key in (keys.HISTORY_MINUTES, keys.HISTORY_HOURS)
    ]
    assert sum(used) < 8_000_000, used
    assert 0 < await redis.pttl(keys.HISTORY_MINUTES) <= (MINUTES.kept + 1) * 60_000
    assert 0 < await redis.pttl(keys.HISTORY_HOURS) <= HOURS.kept * HOUR_MS
