from __future__ import annotations

import asyncio
import subprocess
from collections import Counter

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse
from redis.exceptions import ConnectionError as RedisConnectionError

from service.api.traffic import Traffic
from service.clock import now_ms
from service.domain.metrics import FIRST_ATTEMPT, delivery_times, observe, series_names
from service.storage import keys
from tests.programs import required_program


async def samples(services) -> dict[tuple[str, tuple[str, ...]], float]:
    exposition, _ = await services.metrics.render()
    return {
        (one.name.removeprefix("coursewire_"), tuple(one.labels.values())): one.value
        for family in parse(exposition.decode())
        for one in family.samples
    }


async def commands(redis) -> int:
    return (await redis.info("stats"))["total_commands_processed"]


async def populate(services, *, integrations: int, subscriptions: int) -> None:
    """So many of each, as their scripts leave them."""
    redis, now = services.redis, now_ms()
    await redis.flushall()
    await services.counters.key()
    async with redis.pipeline(transaction=False) as pipeline:
        for number in range(integrations):
            name = f"int_{number:05}"
            pipeline.zadd(keys.INTEGRATIONS, {name: number})
            for kind in ("delta", "sweep"):
                pipeline.zadd(keys.completed(kind), {name: now - number})
            pipeline.zadd(keys.due("walks"), {name: now - number})
        for number in range(subscriptions):
            name = f"sub_{number:05}"
            pipeline.zadd(keys.SUBSCRIPTIONS, {name: number})
            pipeline.xadd(keys.lane(name), {"k": "k", "r": "f"})
            pipeline.zadd(keys.due("lanes"), {name: now - number})
        await pipeline.execute()


async def test_a_scrape_issues_as_many_commands_however_much_is_registered(services, redis):
    spent = []
    for integrations, subscriptions in ((10, 10), (10_000, 1_000), (0, 0)):
        await populate(services, integrations=integrations, subscriptions=subscriptions)
        before = await commands(redis)
        await services.metrics.render()
        spent.append(await commands(redis) - before - 1)  # the question itself
    assert len(set(spent)) == 1, spent
    assert spent[0] == 36


async def test_ages_of_walks_are_told_by_percentile(services, redis):
    now = now_ms()
    for number in range(1, 101):
        await redis.zadd(keys.completed("delta"), {f"int_{number}": now - number * 10_000})
    found = await samples(services)
    ages = {
        percentile: found["walk_age_seconds", ("delta", percentile)]
        for percentile in ("50", "90", "99", "100")
    }
    assert ages["100"] == pytest.approx(1000, abs=9)
    assert ages["99"] == pytest.approx(1000, abs=9)
    assert ages["90"] == pytest.approx(910, abs=9)
    assert ages["50"] == pytest.approx(510, abs=9)
    assert ("walk_age_seconds", ("sweep", "100")) not in found


async def test_a_walk_and_a_delivery_are_counted_with_their_durations(
    register, subscribe, services
):
    integration = await register()
    await integration.turn()
    harness = await subscribe()
    await harness.emit("c1")
    await harness.turn()
    found = await samples(services)
    assert found["walks_total", ("sweep", "completed")] == 1
    assert found["walk_duration_seconds_count", ("sweep",)] == 1
    assert found["walk_duration_seconds_sum", ("sweep",)] > 0
    assert found["upstream_request_duration_seconds_count", ()] == 3
    assert found["integrations", ("active",)] == 1
    assert found["pages_total", ()] == 3
    assert found["deliveries_total", ("delivered",)] == 1


async def test_increments_for_deliveries_become_histograms(services, redis):
    increments: Counter[str] = Counter()
    for seconds in (1, 2, 400):
        increments += delivery_times(
            detected_at=0,
            attempted_at=seconds * 1000,
            ended_at=seconds * 1000,
            attempts=1,
            delivered=True,
        )
    assert increments >= observe(FIRST_ATTEMPT, 1)
    await redis.hset(await services.counters.key(), mapping=dict(increments))
    found = await samples(services)
    assert found["detection_to_receipt_seconds_count", ()] == 3
    assert found["detection_to_receipt_seconds_sum", ()] == 403
    assert found["detection_to_first_attempt_seconds_bucket", ("2.5",)] == 2
    assert found["detection_to_first_attempt_seconds_bucket", ("+Inf",)] == 3


async def test_waiting_for_the_rate_limit_is_counted(register, sandbox, services):
    integration = await register()
    await sandbox.fault("error", code="PLATFORM.RATE_LIMIT_EXCEEDED", times=1, retry_after=9)
    await integration.turn()
    found = await samples(services)
    assert found["rate_limit_waits_total", ("sweep",)] == 1
    assert found["upstream_request_duration_seconds_count", ()] == 1


async def test_workers_count_only_while_they_are_heard_of(services, redis):
    queue = keys.QUEUES[0]
    await redis.sadd(keys.rq_workers(queue), "rq:worker:alive", "rq:worker:gone")
    await redis.hset("rq:worker:alive", "state", "idle")
    await redis.zadd(keys.rq_failed(queue), {"job": 1})
    await redis.zadd(keys.SCHEDULERS, {"one": now_ms() - 5_000})
    await services.control.pause("polling")
    found = await samples(services)
    assert found["workers", (queue,)] == 1
    assert found["workers", (keys.QUEUES[1],)] == 0
    assert found["queue_failed_jobs", (queue,)] == 1
    assert found["scheduler_age_seconds", ()] == pytest.approx(5, abs=2)
    assert (found["paused", ("polling",)], found["paused", ("delivery",)]) == (1, 0)


async def test_without_a_scheduler_there_is_no_age_of_one(services, redis):
    assert ("scheduler_age_seconds", ()) not in await samples(services)


async def test_counters_begin_anew_with_another_run_of_the_server(services, redis, monkeypatch):
    await redis.hset(await services.counters.key(), "pages_total", 7)
    assert (await samples(services))["pages_total", ()] == 7
    info = await redis.info() | {"run_id": "another"}

    async def other(*_sections):
        return info

    monkeypatch.setattr(services.redis, "info", other)
    assert (await samples(services))["pages_total", ()] == 0


async def test_with_redis_away_the_process_still_tells_of_itself_and_says_so(services, monkeypatch):
    async def away(*_sections):
        raise RedisConnectionError

    monkeypatch.setattr(services.redis, "info", away)
    exposition, _ = await services.metrics.render(local=Traffic().collect())
    text = exposition.decode()
    assert "coursewire_redis_up 0.0" in text
    assert "coursewire_build_info{" in text
    assert "coursewire_integrations" not in text


async def test_openmetrics_are_given_to_who_prefers_them(services):
    exposition, content_type = await services.metrics.render(
        "application/openmetrics-text;version=1.0.0,text/plain;q=0.5", Traffic().collect()
    )
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert exposition.endswith(b"# EOF\n")
    families = {family.name for family in parse_openmetrics(exposition.decode())}
    assert {"coursewire_pages", "coursewire_detection_to_receipt_seconds"} <= families


async def test_what_is_exposed_is_what_is_declared(register, subscribe, sandbox, services, redis):
    integration = await register()
    await integration.turn()
    await sandbox.change({"op": "edit", "count": 1})
    await integration.walk("delta")
    await redis.zadd(keys.SCHEDULERS, {"one": now_ms()})
    harness = await subscribe()
    await harness.emit("c1")
    await harness.turn()
    counted = {
        "upstream_errors_total|other": 1,
        "rate_limit_waits_total|delta": 1,
        "replayed_total|delivered": 1,
    }
    await redis.hset(await services.counters.key(), mapping=counted)
    traffic = Traffic()
    traffic._requests.labels("GET", "/v1/status", "200").inc()
    traffic._seconds.labels("GET", "/v1/status").observe(0.1)
    exposition, _ = await services.metrics.render(local=traffic.collect())
    exposed = {
        sample.name
        for family in parse(exposition.decode())
        for sample in family.samples
        if sample.name.startswith("coursewire_")
    }
    assert exposed == series_names()


async def test_promtool_finds_nothing_to_complain_of(register, subscribe, services):
    promtool = required_program("promtool")
    integration = await register()
    await integration.turn()
    harness = await subscribe()
    await harness.emit("c1")
    await harness.turn()
    exposition, _ = await services.metrics.render(local=Traffic().collect())
    checked = await asyncio.to_thread(
        subprocess.run, [promtool, "check", "metrics"], input=exposition, capture_output=True
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
