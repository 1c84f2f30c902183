from __future__ import annotations

import asyncio
import re
import subprocess
from collections import Counter

import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse
from redis.exceptions import ConnectionError as RedisConnectionError

from service.api.http.access_log import Answer
from service.api.http.request_metrics import Traffic
from service.clock import now_ms
from service.domain.observability.metrics import (
    COUNTERS,
    DETAILS,
    FIRST_ATTEMPT,
    GAUGES,
    HISTOGRAMS,
    OF_DETAILS,
    RECEIPT,
    count,
    observe,
    series_names,
)
from service.storage.redis import keys
from tests.integration.conftest import new_integration, redis_now
from tests.integration.scripted import page, refuses, says
from tests.programs import required_program


async def samples(services, details=()) -> dict[tuple[str, tuple[str, ...]], float]:
    exposition, _ = await services.metrics.render(details=details)
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
    await redis.admin.flushall()
    await services.counters.key()
    async with redis.pipeline(transaction=False) as pipeline:
        for number in range(integrations):
            name = f"int_{number:05}"
            pipeline.zadd(keys.INTEGRATIONS, {name: number})
            for kind in ("delta", "full"):
                pipeline.zadd(keys.completed(kind), {name: now - number})
            pipeline.zadd(keys.due("polls"), {name: now - number})
        for number in range(subscriptions):
            name = f"sub_{number:05}"
            pipeline.zadd(keys.SUBSCRIPTIONS, {name: number})
            pipeline.xadd(keys.outbox(name), {"k": "k", "r": "f"})
            pipeline.zadd(keys.due("outboxes"), {name: now - number})
        await pipeline.execute()


async def test_a_scrape_issues_as_many_commands_however_much_is_registered(services, redis):
    spent = []
    for integrations, subscriptions in ((10, 10), (10_000, 1_000), (0, 0)):
        await populate(services, integrations=integrations, subscriptions=subscriptions)
        before = await commands(redis)
        await services.metrics.render()
        spent.append(await commands(redis) - before - 1)  # the question itself
    assert len(set(spent)) == 1, spent
    assert spent[0] == 38


async def test_ages_of_polls_are_told_by_percentile(services, redis):
    now = now_ms()
    for number in range(1, 101):
        await redis.zadd(keys.completed("delta"), {f"int_{number}": now - number * 10_000})
    found = await samples(services)
    ages = {
        percentile: found["poll_age_seconds", ("delta", percentile)]
        for percentile in ("50", "90", "99", "100")
    }
    assert ages["100"] == pytest.approx(1000, abs=9)
    assert ages["99"] == pytest.approx(1000, abs=9)
    assert ages["90"] == pytest.approx(910, abs=9)
    assert ages["50"] == pytest.approx(510, abs=9)
    assert ("poll_age_seconds", ("full", "100")) not in found


async def test_a_poll_and_a_delivery_are_counted_with_their_durations(
    register, subscribe, services
):
    integration = await register()
    await integration.turn()
    harness = await subscribe()
    await harness.emit("c1")
    await harness.turn()
    found = await samples(services)
    assert found["polls_total", ("full", "completed")] == 1
    assert found["poll_duration_seconds_count", ("full",)] == 1
    assert found["poll_duration_seconds_sum", ("full",)] > 0
    assert found["upstream_request_duration_seconds_count", ()] == 3
    assert found["integrations", ("active",)] == 1
    assert found["pages_total", ()] == 3
    assert found["deliveries_total", ("delivered",)] == 1


async def test_what_a_new_subscription_gets_of_the_past_was_not_late(subscribe, services):
    harness = await subscribe()
    await services.subscriptions.update(
        harness.id, lambda it: msgspec.structs.replace(it, created_at=now_ms() + 60_000)
    )
    await harness.emit("c1")
    await harness.turn()
    found = await samples(services)
    assert found["deliveries_total", ("delivered",)] == 1
    assert found["detection_to_receipt_seconds_count", ()] == 0


async def test_increments_for_deliveries_become_histograms(services, redis):
    increments: Counter[str] = Counter()
    for metric in (FIRST_ATTEMPT, RECEIPT):
        for seconds in (1, 2, 400):
            count(increments, metric, seconds)
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
    assert found["rate_limit_waits_total", ("full",)] == 1
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
    await integration.poll("delta")
    await redis.zadd(keys.SCHEDULERS, {"one": now_ms()})
    harness = await subscribe()
    await harness.emit("c1")
    await harness.turn()
    await redis.hset(await services.counters.key(), "upstream_errors_total|UpstreamPage", 1)
    traffic = Traffic()
    asked = {"path_template": "/v1/status", "method": "GET", "query_string": b""}
    traffic.count(asked, Answer(status=200, seconds=0.1))
    exposition, _ = await services.metrics.render(local=traffic.collect(), details=DETAILS)
    exposed = {
        sample.name
        for family in parse(exposition.decode())
        for sample in family.samples
        if sample.name.startswith("coursewire_")
    }
    assert exposed == series_names()


async def test_what_may_be_counted_is_there_as_zero_before(services):
    found = await samples(services)
    for metric in COUNTERS:
        for labels in metric.known:
            assert found[metric.name, labels] == 0
    assert found["pages_total", ()] == 0


async def test_units_are_told_and_names_end_with_them(services):
    exposition, _ = await services.metrics.render(
        "application/openmetrics-text;version=1.0.0", Traffic().collect(), DETAILS
    )
    units = dict(re.findall(r"^# UNIT coursewire_(\S+) (\w+)$", exposition.decode(), re.MULTILINE))
    assert units["redis_memory_used_bytes"] == "bytes"
    assert units["poll_age_seconds"] == "seconds"
    assert units["rate_limit_remaining_ratio"] == "ratio"
    for name, unit in units.items():
        assert name.endswith(f"_{unit}")
    for metric in (*GAUGES, *HISTOGRAMS, *OF_DETAILS):
        for unit in ("seconds", "bytes", "ratio"):
            assert (metric.unit == unit) is metric.name.endswith(f"_{unit}"), metric.name


async def test_outboxes_are_counted_by_state(subscribe, services):
    harnesses = [await subscribe() for _ in range(3)]
    one, other = (harness.id for harness in harnesses[:2])

    async def outboxes() -> dict[str, float]:
        found = await samples(services)
        return {
            labels[0]: value
            for (name, labels), value in found.items()
            if name == "outboxes" and value
        }

    assert await outboxes() == {"active": 3}
    await services.subscriptions.update(one, lambda it: msgspec.structs.replace(it, paused=True))
    assert await outboxes() == {"active": 2, "paused": 1}
    # What was parked is parked again when it is no longer paused, until the subscriber answers.
    await services.redis.hset(keys.outbox_state(one), "parked", 5)
    await services.subscriptions.update(one, lambda it: msgspec.structs.replace(it, paused=False))
    assert await outboxes() == {"active": 2, "parked": 1}
    await services.subscriptions.resume(one, now_ms())
    assert await outboxes() == {"active": 3}
    await services.subscriptions.update(other, lambda it: msgspec.structs.replace(it, paused=True))
    for harness in harnesses:
        await services.subscriptions.delete(harness.id)
    assert await outboxes() == {}


async def test_an_outbox_whose_last_attempt_failed_is_told_of_until_one_succeeds(
    subscribe, hook, services
):
    harness = await subscribe()

    async def outboxes() -> dict[str, float]:
        found = await samples(services)
        return {
            labels[0]: value
            for (name, labels), value in found.items()
            if name == "outboxes" and value
        }

    hook.answer = lambda _event: 500
    await harness.emit("c1")
    await harness.turn()
    assert await outboxes() == {"failing": 1}
    hook.answer = lambda _event: 204
    await harness.emit("c2")
    await harness.turn()
    assert await outboxes() == {"active": 1}


async def test_work_that_nobody_begins_is_old_until_it_is_deleted(
    register, subscribe, services, redis
):
    integration, harness = await register(), await subscribe()
    old = await redis_now(redis) - 600_000
    await redis.zadd(keys.overdue("polls"), {integration.id: old})
    await redis.zadd(keys.overdue("outboxes"), {harness.id: old})

    async def age(kind: str) -> float:
        return (await samples(services))["due_oldest_age_seconds", (kind,)]

    assert await age("polls") == pytest.approx(600, abs=9)
    assert await age("outboxes") == pytest.approx(600, abs=9)
    await services.integrations.delete(integration.id)
    await services.subscriptions.delete(harness.id)
    assert await age("polls") == await age("outboxes") == 0


@pytest.mark.parametrize(
    ("kind", "fresh"),
    [
        pytest.param("full", {"delta", "full"}, id="a full poll shows what a delta does"),
        pytest.param("delta", {"delta"}, id="a delta says nothing of what is gone"),
    ],
)
async def test_a_completed_poll_is_the_new_age_of_its_kind(kind, fresh, register, services, redis):
    integration = await register()
    await integration.turn()
    long_ago = await redis_now(redis) - 600_000
    for one in ("delta", "full"):
        await redis.zadd(keys.completed(one), {integration.id: long_ago})
    await integration.poll(kind)
    found = await samples(services)
    ages = {one: found["poll_age_seconds", (one, "100")] for one in ("delta", "full")}
    assert {one for one, age in ages.items() if age < 60} == fresh


async def test_single_registrations_are_told_of_only_on_request(register, subscribe, services):
    integration = await register()
    await integration.turn()
    harness = await subscribe()
    await harness.emit("c1")
    await services.budgets.note("cred_x", limit=60, remaining=12, reset_seconds=60)
    await services.redis.zadd(keys.CREDENTIALS, {"cred_x": 1})
    assert not any("integration_" in name for name, _ in await samples(services))
    found = await samples(services, details=DETAILS)
    assert found["integration_state", (integration.id, "active")] == 1
    assert found["integration_courses", (integration.id,)] > 0
    assert found["integration_poll_age_seconds", (integration.id, "full")] < 60
    assert found["subscription_state", ("active", harness.id)] == 1  # labels are in their own order
    assert found["subscription_pending", (harness.id,)] == 1
    assert found["subscription_dead", (harness.id,)] == 0
    assert 0 <= found["subscription_oldest_pending_age_seconds", (harness.id,)] < 60
    assert found["credential_rate_limit_remaining", ("cred_x",)] == 12
    assert found["detail_omitted", ("subscriptions",)] == 0


async def test_so_many_are_told_of_and_no_more(services, monkeypatch):
    await populate(services, integrations=7, subscriptions=5)
    for number in range(5):
        await services.redis.hset(keys.outbox_state(f"sub_{number:05}"), "state", "active")
    monkeypatch.setattr("service.domain.observability.metrics.DETAIL_MOST", 3)
    monkeypatch.setattr("service.storage.observability.per_resource_gauges.AT_ONCE", 2)
    found = await samples(services, details=("subscriptions", "integrations"))
    told = [labels[0] for name, labels in found if name == "subscription_pending"]
    assert told == ["sub_00000", "sub_00001", "sub_00002"]
    assert found["detail_omitted", ("subscriptions",)] == 2
    assert found["detail_omitted", ("integrations",)] == 4
    assert ("detail_omitted", ("credentials",)) not in found


async def test_a_redis_that_is_silent_for_too_long_counts_as_away(services, monkeypatch):
    async def silent(*_sections):
        await asyncio.Event().wait()

    monkeypatch.setattr(services.redis, "info", silent)
    monkeypatch.setattr("service.storage.observability.exposition.PATIENCE_SECONDS", 0.05)
    assert await samples(services) == {("redis_up", ()): 0}


@pytest.mark.parametrize(
    ("limit", "remaining", "counted"),
    [("300", "75", 0.25), ("1", "9999999999", 1), ("300", "0", 0)],
)
async def test_what_is_left_of_a_rate_limit_is_counted(
    context, scripted, services, limit, remaining, counted
):
    integration = await new_integration(context, scripted.base_url)
    scripted.answer = says(
        200,
        page(["a"]),
        ratelimit_limit=limit,
        ratelimit_remaining=remaining,
        ratelimit_reset="60",
    )
    await integration.turn()
    found = await samples(services)
    assert found["rate_limit_remaining_ratio_count", ()] == 1
    assert found["rate_limit_remaining_ratio_sum", ()] == counted
    assert found["rate_limit_remaining_ratio_bucket", (f"{counted:g}",)] == 1


async def test_codes_that_nobody_knows_make_no_series(context, scripted, services):
    integration = await new_integration(context, scripted.base_url)
    for number in range(3):
        scripted.answer = refuses(500, f"HOSTILE.CODE_{'X' * number}")
        await integration.turn()
    scripted.answer = refuses(401, "PLATFORM.AUTHENTICATION_INVALID")
    await integration.turn()
    found = await samples(services)
    counted = {labels: n for (name, labels), n in found.items() if name == "upstream_errors_total"}
    assert counted == {("UpstreamUnavailable",): 3, ("PLATFORM.AUTHENTICATION_INVALID",): 1}


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
