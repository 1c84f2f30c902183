from __future__ import annotations

import base64
import json

import msgspec
import pytest
from standardwebhooks import Webhook

from service.domain.retry import Outcome, OutcomeClass
from service.storage import keys

SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
MINIMAL = {"url": "https://receiver.example/hook"}


@pytest.fixture
async def subscription(client) -> dict:
    answer = await client.post("/v1/subscriptions", json={**MINIMAL, "secret": SECRET})
    assert answer.status_code == 201, answer.text
    return answer.json()


@pytest.fixture
def path(subscription) -> str:
    return f"/v1/subscriptions/{subscription['id']}"


async def test_a_subscription_is_created_with_the_published_defaults(client) -> None:
    answer = await client.post("/v1/subscriptions", json=MINIMAL)
    assert answer.status_code == 201
    created = answer.json()
    assert answer.headers["location"] == f"/v1/subscriptions/{created['id']}"
    assert len(base64.b64decode(created.pop("secret").removeprefix("whsec_"))) == 32
    assert all(created.pop(name) for name in ("id", "created_at", "updated_at"))
    assert created == {
        "url": MINIMAL["url"],
        "description": None,
        "event_types": None,
        "integration_ids": None,
        "labels": None,
        "changed": None,
        "payload": "full",
        "headers": {},
        "max_concurrency": 8,
        "rate_per_second": None,
        "timeout_seconds": 15.0,
        "retry_schedule_seconds": [5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400],
        "paused": False,
        "state": "active",
        "disabled_reason": None,
        "pending": 0,
        "dead": 0,
        "oldest_pending_at": None,
    }


async def test_every_field_is_stored_as_sent(client) -> None:
    integration = await client.post(
        "/v1/integrations",
        json={"name": "a", "upstream_id": "w:1", "base_url": "https://a.example", "api_key": "k"},
    )
    sent = {
        "url": "https://receiver.example/a?b=c",
        "description": "two\nlines",
        "event_types": ["course.deleted", "integration.baseline_completed"],
        "integration_ids": [integration.json()["id"]],
        "labels": {"region": "eu"},
        "changed": ["provider"],
        "payload": "thin",
        "max_concurrency": 1,
        "rate_per_second": 0.5,
        "timeout_seconds": 2.5,
        "retry_schedule_seconds": [1, 1, 2],
        "paused": True,
    }
    answer = await client.post("/v1/subscriptions", json={**sent, "headers": {"X-Token": "hush"}})
    created = answer.json()
    assert {name: created[name] for name in sent} == sent
    assert created["state"] == "paused"
    assert created["headers"] == {"x-token": None}
    assert "hush" not in answer.text


async def test_every_wrong_field_is_named_at_once(client, refused) -> None:
    answer = await client.post(
        "/v1/subscriptions",
        json={
            "url": "http://192.168.1.1/",
            "description": 4,
            "event_types": ["course.created", "course.changed"],
            "integration_ids": ["int_none", "x"],
            "labels": [],
            "changed": [],
            "payload": "fat",
            "headers": {"host": "x", "a b": "c", "ok": "line\nbreak", "no": None},
            "secret": "whsec_c2hvcnQ=",
            "max_concurrency": 0,
            "rate_per_second": 0,
            "timeout_seconds": 3600,
            "retry_schedule_seconds": [5, 300, "1800", 0],
            "paused": 1,
            "urll": "x",
            "pending": 3,
            "disabled_reason": None,
        },
    )
    errors = refused(
        answer,
        *("url", "description", "event_types[1]", "integration_ids[1]", "labels", "changed"),
        *("payload", "headers.host", "headers.a b", "headers.ok", "headers.no", "secret"),
        *("max_concurrency", "rate_per_second", "timeout_seconds", "disabled_reason"),
        "retry_schedule_seconds[2]",
        *("retry_schedule_seconds[3]", "paused", "urll", "pending"),
    )
    assert "COURSEWIRE_ALLOWED_TARGETS=192.168.1.1" in errors["url"]["remedy"]
    assert errors["event_types[1]"]["remedy"] == "did you mean course.created?"
    assert "24 to 64 bytes" in errors["secret"]["message"]
    assert errors["urll"]["remedy"] == "did you mean url?"


async def test_unknown_integrations_are_named(client, refused) -> None:
    refused(
        await client.post("/v1/subscriptions", json={**MINIMAL, "integration_ids": ["int_none"]}),
        "integration_ids[0]",
    )


async def test_retries_may_not_outlive_the_events(client, refused) -> None:
    answer = await client.post(
        "/v1/subscriptions", json={**MINIMAL, "retry_schedule_seconds": [86_400] * 8}
    )
    errors = refused(answer, "retry_schedule_seconds")
    assert "EVENT_RETENTION_SECONDS" in errors["retry_schedule_seconds"]["remedy"]


async def test_the_secret_is_returned_only_where_it_is_asked_for(
    client, path, subscription
) -> None:
    assert subscription["secret"] == SECRET
    for answer in (
        await client.get(path),
        await client.get("/v1/subscriptions"),
        await client.patch(path, json={"description": "x"}),
    ):
        assert SECRET not in answer.text
        assert '"secret"' not in answer.text
    answer = await client.get(f"{path}/secret")
    assert answer.json() == {"secret": SECRET}
    assert answer.headers["cache-control"] == "no-store"


async def test_a_patch_changes_only_what_is_sent(client, services, path, subscription) -> None:
    await client.patch(path, json={"headers": {"a": "1"}})
    changed = await client.patch(path, json={"paused": True, "event_types": ["course.deleted"]})
    expected = {**subscription, "headers": {"a": None}, "paused": True, "state": "paused"}
    expected["event_types"] = ["course.deleted"]
    for name in ("secret", "updated_at"):
        expected.pop(name)
    shown = changed.json()
    shown.pop("updated_at")
    assert shown == expected
    assert await services.subscriptions.headers(subscription["id"]) == {"a": "1"}
    restored = await client.patch(path, json={"event_types": None})
    assert restored.json()["event_types"] is None


async def test_the_secret_cannot_be_patched(client, refused, path) -> None:
    errors = refused(await client.patch(path, json={"secret": SECRET, "url": "x"}), "secret", "url")
    assert "new subscription" in errors["secret"]["remedy"]


async def test_what_is_pending_and_dead_is_shown(client, services, path, subscription) -> None:
    lane = keys.lane(subscription["id"])
    await services.redis.xadd(lane, {"k": "c", "r": "f"}, id="1795424001123-0")
    await services.redis.xadd(lane, {"k": "c", "r": "f"}, id="1795424001124-0")
    await services.redis.xadd(keys.lane_dead(subscription["id"]), {"p": "1-0"})
    shown = (await client.get(path)).json()
    assert (shown["pending"], shown["dead"]) == (2, 1)
    assert shown["oldest_pending_at"] == "2026-11-23T08:53:21.123Z"
    listed = (await client.get("/v1/subscriptions")).json()
    assert listed == {"items": [shown], "next": None}


async def test_a_deleted_subscription_is_gone(client, problem, path) -> None:
    assert (await client.delete(path)).status_code == 204
    for method, place in (
        ("GET", path),
        ("DELETE", path),
        ("GET", f"{path}/secret"),
        ("POST", f"{path}/test"),
        ("POST", f"{path}/resume"),
    ):
        problem(await client.request(method, place), "not-found", 404)
    problem(await client.patch(path, json={}), "not-found", 404)


async def disable(services, subscription_id) -> None:
    await services.subscriptions.update(
        subscription_id, lambda old: msgspec.structs.replace(old, disabled_reason="410 Gone")
    )
    await services.redis.hset(keys.lane_state(subscription_id), "disabled", "1")
    await services.redis.hincrby(keys.TOTALS, "disabled", 1)


async def test_a_disabled_subscription_says_why_and_no_edit_brings_it_back(
    client, services, path, subscription
) -> None:
    await disable(services, subscription["id"])
    shown = (await client.get(path)).json()
    assert (shown["state"], shown["disabled_reason"]) == ("disabled", "410 Gone")
    for sent in ({"paused": True}, {"paused": False}, {"url": "https://other.example/"}):
        assert (await client.patch(path, json=sent)).json()["state"] == "disabled"
    assert await services.redis.zscore(keys.due("lanes"), subscription["id"]) is None


async def test_resuming_brings_back_whatever_stopped_it_and_makes_everything_due(
    client, services, path, subscription
) -> None:
    redis, name = services.redis, subscription["id"]
    await disable(services, name)
    await client.patch(path, json={"paused": True})
    await redis.hset(keys.lane_state(name), mapping={"parked": "5", "breaker": "{}"})
    await redis.hincrby(keys.TOTALS, "parked", 1)
    await redis.xadd(keys.lane(name), {"k": "c", "r": "f"})
    await redis.zadd(keys.lane_retries(name), {"c": 9e15, "d": 8e15})
    await redis.zadd(keys.claimed("lanes"), {name: 9e15})  # held back
    version, _ = await services.subscriptions.all_for_matching()

    shown = (await client.post(f"{path}/resume")).json()

    assert (shown["state"], shown["disabled_reason"], shown["paused"]) == ("active", None, False)
    assert await redis.zscore(keys.due("lanes"), name) is not None
    assert await redis.zscore(keys.claimed("lanes"), name) is None
    assert await redis.zrange(keys.lane_retries(name), 0, -1, withscores=True) == [
        (b"c", 0.0),
        (b"d", 0.0),
    ]
    assert await redis.hgetall(keys.TOTALS) == {b"disabled": b"0", b"parked": b"0"}
    assert (await services.subscriptions.all_for_matching())[0] > version


async def test_a_lane_at_work_is_not_handed_out_again_by_a_resume(
    client, services, path, subscription
) -> None:
    redis, name = services.redis, subscription["id"]
    await redis.xadd(keys.lane(name), {"k": "c", "r": "f"})
    await redis.zadd(keys.claimed("lanes"), {name: 9e15})
    await redis.set(keys.lease("lanes", name), "token")
    assert (await client.post(f"{path}/resume")).status_code == 200
    assert await redis.zscore(keys.due("lanes"), name) is None
    assert await redis.zscore(keys.claimed("lanes"), name) == 9e15


async def test_a_parked_lane_is_shown_as_such(client, services, path, subscription) -> None:
    await services.redis.hset(keys.lane_state(subscription["id"]), "parked", "5")
    assert (await client.get(path)).json()["state"] == "parked"
    paused = await client.patch(path, json={"paused": True})
    assert paused.json()["state"] == "paused"


async def test_a_test_event_is_posted_signed_and_the_attempt_returned(
    client, receiver, path, subscription
) -> None:
    await client.patch(path, json={"headers": {"X-Token": "hush"}, "timeout_seconds": 3})
    answer = await client.post(f"{path}/test")
    assert answer.status_code == 200
    (url, headers, body, timeout) = receiver.posted[0]
    assert (url, timeout) == (MINIMAL["url"], 3.0)
    assert headers["x-token"] == "hush"
    assert headers["content-type"] == "application/json"
    assert Webhook(SECRET).verify(body, headers)["type"] == "coursewire.test"
    assert json.loads(body)["data"]["subscription_id"] == subscription["id"]
    attempt = answer.json()
    assert attempt["event_id"] == headers["webhook-id"]
    assert (attempt["outcome"], attempt["status"], attempt["duration_ms"]) == ("delivered", 204, 7)


async def test_a_test_that_fails_returns_the_attempt_too(client, receiver, path) -> None:
    receiver.outcome = Outcome(
        kind=OutcomeClass.STATUS, duration_ms=3, status=500, excerpt=b"\xffoops", error="HTTP 500"
    )
    answer = await client.post(f"{path}/test")
    assert answer.status_code == 200
    attempt = answer.json()
    assert (attempt["outcome"], attempt["status"]) == ("status", 500)
    assert attempt["excerpt"].endswith("oops")
