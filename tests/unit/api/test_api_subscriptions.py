from __future__ import annotations

import base64
import json
import time
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from standardwebhooks import Webhook

from service.clock import now_ms
from service.domain.delivery.circuit_breaker import Breaker
from service.domain.delivery.outcome import Outcome, OutcomeClass
from service.domain.events.identifiers import event_id
from service.domain.signatures.signing import Signature, make_secret, read_public_key, read_secret
from service.domain.signatures.verification import fault
from service.storage.redis import keys

SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
SECRET_2 = "whsec_" + base64.b64encode(b"t" * 32).decode()
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
        "owner": None,
        "event_types": None,
        "integration_ids": None,
        "labels": None,
        "changed": None,
        "payload": "full",
        "format": "standard",
        "signature": "hmac",
        "public_key": None,
        "headers": {},
        "client_certificate": None,
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
        "format": "cloudevents",
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
            "format": "cloudevent",
            "headers": {"host": "x", "a b": "c", "ok": "line\nbreak", "no": None},
            "signature": "rsa",
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
        *("payload", "format", "headers.host", "headers.a b", "headers.ok", "headers.no"),
        *("secret", "signature", "max_concurrency", "rate_per_second", "timeout_seconds"),
        *("disabled_reason", "retry_schedule_seconds[2]"),
        *("retry_schedule_seconds[3]", "paused", "urll", "pending"),
    )
    assert "add 192.168.1.1 to COURSEWIRE_ALLOWED_TARGETS" in errors["url"]["remedy"]
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
    assert answer.json() == {
        "signature": "hmac",
        "secret": SECRET,
        "public_key": None,
        "previous": [],
    }
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


async def test_secret_and_signature_are_changed_by_rotation_alone(client, refused, path) -> None:
    sent = {"secret": SECRET, "signature": "ed25519", "url": "x"}
    errors = refused(await client.patch(path, json=sent), "secret", "signature", "url")
    assert "/secret/rotate" in errors["secret"]["remedy"]
    assert "/secret/rotate" in errors["signature"]["remedy"]


async def test_what_is_pending_and_dead_is_shown(client, services, path, subscription) -> None:
    outbox = keys.outbox(subscription["id"])
    await services.redis.xadd(outbox, {"k": "c", "r": "f"}, id="1795424001123-0")
    await services.redis.xadd(outbox, {"k": "c", "r": "f"}, id="1795424001124-0")
    await services.redis.zadd(keys.outbox_dead(subscription["id"]), {"1-0": 1})
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
        ("POST", f"{path}/secret/rotate"),
        ("POST", f"{path}/test"),
        ("POST", f"{path}/resume"),
    ):
        problem(await client.request(method, place), "not-found", 404)
    problem(await client.patch(path, json={}), "not-found", 404)


async def disable(services, subscription_id) -> None:
    await services.subscriptions.update(
        subscription_id, lambda old: msgspec.structs.replace(old, disabled_reason="410 Gone")
    )
    await services.redis.hset(keys.outbox_state(subscription_id), "disabled", "1")


async def test_a_disabled_subscription_says_why_and_no_edit_brings_it_back(
    client, services, path, subscription
) -> None:
    await disable(services, subscription["id"])
    shown = (await client.get(path)).json()
    assert (shown["state"], shown["disabled_reason"]) == ("disabled", "410 Gone")
    for sent in ({"paused": True}, {"paused": False}, {"url": "https://other.example/"}):
        assert (await client.patch(path, json=sent)).json()["state"] == "disabled"
    assert await services.redis.zscore(keys.due("outboxes"), subscription["id"]) is None


async def test_resuming_brings_back_whatever_stopped_it_and_makes_everything_due(
    client, services, path, subscription
) -> None:
    redis, name = services.redis, subscription["id"]
    await disable(services, name)
    await client.patch(path, json={"paused": True})
    await redis.hset(keys.outbox_state(name), mapping={"parked": "5", "breaker": "{}"})
    await redis.xadd(keys.outbox(name), {"k": "c", "r": "f"})
    await redis.zadd(keys.outbox_retries(name), {"c": 9e15, "d": 8e15})
    await redis.zadd(keys.claimed("outboxes"), {name: 9e15})  # held back
    version, *_ = await services.subscriptions.all_for_matching()

    shown = (await client.post(f"{path}/resume")).json()

    assert (shown["state"], shown["disabled_reason"], shown["paused"]) == ("active", None, False)
    assert await redis.zscore(keys.due("outboxes"), name) is not None
    assert await redis.zscore(keys.claimed("outboxes"), name) is None
    assert await redis.zrange(keys.outbox_retries(name), 0, -1, withscores=True) == [
        (b"c", 0.0),
        (b"d", 0.0),
    ]
    counted = await redis.hgetall(keys.TOTALS)
    assert counted == {b"outbox:active": b"1", b"outbox:disabled": b"0"}
    assert (await services.subscriptions.all_for_matching())[0] > version


async def test_retries_are_made_due_now_and_nothing_holds_them_back(
    client, services, path, subscription, problem
) -> None:
    redis, name = services.redis, subscription["id"]
    breaker = Breaker(failures=12, parked_at=5, probes=3, probe_at=9_000, held_until=8_000)
    await redis.hset(
        keys.outbox_state(name), mapping={"parked": "5", "breaker": msgspec.json.encode(breaker)}
    )
    position = "1795424001123-0"
    await redis.xadd(keys.outbox(name), {"k": "c", "r": "f"}, id=position)
    await redis.zadd(keys.outbox_retries(name), {"c": 9e15, "d": 8e15})
    await redis.zadd(keys.claimed("outboxes"), {name: 9e15})  # held back

    # One event makes its course due, whichever event of that comes first.
    event = event_id(position, "a" * 12)
    answer = await client.post(f"{path}/retry", json={"event_id": event})
    assert (answer.status_code, answer.json()) == (200, {"retried": 1, "pending": 1})
    assert await redis.zrange(keys.outbox_retries(name), 0, -1, withscores=True) == [
        (b"c", 0.0),
        (b"d", 8e15),
    ]
    assert await redis.zscore(keys.due("outboxes"), name) is not None
    assert await redis.zscore(keys.claimed("outboxes"), name) is None
    stored = msgspec.json.decode(await redis.hget(keys.outbox_state(name), "breaker"), type=Breaker)
    assert stored == msgspec.structs.replace(breaker, probe_at=0, held_until=0)
    assert (await client.get(path)).json()["state"] == "parked"

    assert (await client.post(f"{path}/retry")).json() == {"retried": 2, "pending": 1}
    assert await redis.zscore(keys.outbox_retries(name), "d") == 0
    unknown = event_id("1795424001123-1", "a" * 12)
    found = problem(
        await client.post(f"{path}/retry", json={"event_id": unknown}), "not-found", 404
    )
    assert "redeliver" in found["detail"]
    await client.patch(path, json={"paused": True})
    assert "resume" in problem(await client.post(f"{path}/retry"), "conflict", 409)["detail"]
    problem(await client.post("/v1/subscriptions/sub_x/retry"), "not-found", 404)


async def test_an_outbox_at_work_is_not_handed_out_again_by_a_resume(
    client, services, path, subscription
) -> None:
    redis, name = services.redis, subscription["id"]
    await redis.xadd(keys.outbox(name), {"k": "c", "r": "f"})
    await redis.zadd(keys.claimed("outboxes"), {name: 9e15})
    await redis.set(keys.lease("outboxes", name), "token")
    assert (await client.post(f"{path}/resume")).status_code == 200
    assert await redis.zscore(keys.due("outboxes"), name) is None
    assert await redis.zscore(keys.claimed("outboxes"), name) == 9e15


async def test_a_parked_outbox_is_shown_as_such(client, services, path, subscription) -> None:
    await services.redis.hset(keys.outbox_state(subscription["id"]), "parked", "5")
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
        kind=OutcomeClass.STATUS,
        duration_ms=3,
        status=500,
        excerpt=b"\xffoops\xe2\x82",
        error="HTTP 500",
    )
    answer = await client.post(f"{path}/test")
    assert answer.status_code == 200
    attempt = answer.json()
    assert (attempt["outcome"], attempt["status"]) == ("status", 500)
    assert attempt["excerpt"].endswith("oops")


async def test_a_test_event_has_the_format_of_the_subscription(client, receiver, path) -> None:
    await client.patch(path, json={"format": "cloudevents"})
    await client.post(f"{path}/test")
    (_, headers, body, _) = receiver.posted[0]
    assert headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    event = json.loads(body)
    assert (event["type"], event["id"]) == ("coursewire.test", headers["webhook-id"])


# --- signatures and rotation ------------------------------------------------------------------

SEED = bytes(range(32))
PRIVATE = make_secret(Signature.ED25519, SEED)
PUBLIC = read_secret(PRIVATE).public_key


async def posted_signatures(client, receiver, path) -> list[str]:
    await client.post(f"{path}/test")
    return receiver.posted[-1][1]["webhook-signature"].split(" ")


async def test_an_ed25519_subscription_shows_its_public_key_and_never_the_private_one(
    client, receiver
) -> None:
    created = await client.post("/v1/subscriptions", json={**MINIMAL, "signature": "ed25519"})
    path = f"/v1/subscriptions/{created.json()['id']}"
    key = created.json()["public_key"]
    shown = await client.get(f"{path}/secret")
    answers = (
        created,
        shown,
        await client.get(path),
        await client.get("/v1/subscriptions"),
        await client.post(f"{path}/secret/rotate"),
    )
    assert all("whsk_" not in answer.text and "whsec_" not in answer.text for answer in answers)
    assert "secret" not in created.json()
    assert (await client.post(f"{path}/test")).json()["outcome"] == "delivered"
    assert shown.json() == {
        "signature": "ed25519",
        "secret": None,
        "public_key": key,
        "previous": [],
    }
    _, headers, body, _ = receiver.posted[-1]
    assert fault(read_public_key(key), headers, body, time.time()) is None


@pytest.mark.parametrize("sent", [{"secret": PRIVATE}, {"secret": PRIVATE, "signature": "ed25519"}])
@pytest.mark.parametrize("form", [PRIVATE, "whsk_" + base64.b64encode(SEED).decode()])
async def test_a_given_private_key_is_used(client, sent, form) -> None:
    created = await client.post("/v1/subscriptions", json={**MINIMAL, **sent, "secret": form})
    assert created.status_code == 201
    assert (created.json()["signature"], created.json()["public_key"]) == ("ed25519", PUBLIC)


@pytest.mark.parametrize(("secret", "signature"), [(SECRET, "ed25519"), (PRIVATE, "hmac")])
async def test_a_secret_of_the_other_signature_is_refused(
    client, refused, path, secret, signature
) -> None:
    sent = {"secret": secret, "signature": signature}
    for answer in (
        await client.post("/v1/subscriptions", json={**MINIMAL, **sent}),
        await client.post(f"{path}/secret/rotate", json=sent),
    ):
        errors = refused(answer, "secret")
        assert "leave out signature" in errors["secret"]["remedy"]
        assert secret not in answer.text


async def test_a_rotation_without_a_body_overlaps_for_a_day(client, receiver, path) -> None:
    answer = await client.post(f"{path}/secret/rotate")
    assert answer.status_code == 200, answer.text
    rotated = answer.json()
    assert rotated["secret"].startswith("whsec_")
    (previous,) = rotated["previous"]
    assert previous["secret"] == SECRET != rotated["secret"]
    ends = datetime.fromisoformat(previous["expires_at"])
    assert abs(ends - datetime.now(UTC) - timedelta(days=1)) < timedelta(minutes=1)
    assert (await client.get(f"{path}/secret")).json() == rotated
    newest, older = await posted_signatures(client, receiver, path)
    _, headers, body, _ = receiver.posted[-1]
    for secret, signature in ((rotated["secret"], newest), (SECRET, older)):
        Webhook(secret).verify(body, {**headers, "webhook-signature": signature})


async def test_a_rotation_without_overlap_revokes_every_other_secret(
    client, receiver, path
) -> None:
    await client.post(f"{path}/secret/rotate")
    answer = await client.post(f"{path}/secret/rotate", json={"overlap_seconds": 0})
    assert answer.json()["previous"] == []
    assert len(await posted_signatures(client, receiver, path)) == 1
    _, headers, body, _ = receiver.posted[-1]
    Webhook(answer.json()["secret"]).verify(body, headers)


async def test_an_overlap_ends_by_time_alone(client, receiver, path, monkeypatch) -> None:
    rotated = (await client.post(f"{path}/secret/rotate", json={"overlap_seconds": 60})).json()
    assert len(rotated["previous"]) == 1
    for module in ("secrets", "send_test_event"):
        name = f"service.api.resources.subscriptions.{module}.now_ms"
        monkeypatch.setattr(name, lambda: now_ms() + 61_000)
    assert (await client.get(f"{path}/secret")).json() == {**rotated, "previous": []}
    assert len(await posted_signatures(client, receiver, path)) == 1


async def test_a_rotation_removes_what_has_expired(
    client, services, subscription, path, monkeypatch
) -> None:
    await client.post(f"{path}/secret/rotate", json={"overlap_seconds": 60})
    assert len(await services.subscriptions.secrets(subscription["id"])) == 2
    for module in ("secrets", "send_test_event"):
        name = f"service.api.resources.subscriptions.{module}.now_ms"
        monkeypatch.setattr(name, lambda: now_ms() + 61_000)
    await client.post(f"{path}/secret/rotate")
    kept = await services.subscriptions.secrets(subscription["id"])
    assert len(kept) == 2
    assert SECRET not in {one.secret for one in kept}


async def test_a_rotation_can_change_the_signature_while_both_are_sent(
    client, receiver, path
) -> None:
    rotated = (await client.post(f"{path}/secret/rotate", json={"signature": "ed25519"})).json()
    assert (rotated["signature"], rotated["secret"]) == ("ed25519", None)
    assert rotated["previous"][0]["secret"] == SECRET
    shown = (await client.get(path)).json()
    assert (shown["signature"], shown["public_key"]) == ("ed25519", rotated["public_key"])
    await client.post(f"{path}/test")
    _, headers, body, _ = receiver.posted[-1]
    signatures = headers["webhook-signature"].split(" ")
    assert [one.partition(",")[0] for one in signatures] == ["v1a", "v1"]
    Webhook(SECRET).verify(body, headers)
    assert fault(read_public_key(rotated["public_key"]), headers, body, time.time()) is None
    stays = (await client.post(f"{path}/secret/rotate")).json()
    assert stays["signature"] == "ed25519"
    back = (await client.post(f"{path}/secret/rotate", json={"secret": SECRET_2})).json()
    assert (back["signature"], back["secret"]) == ("hmac", SECRET_2)
    assert (await client.get(path)).json()["public_key"] is None


async def test_a_secret_in_force_is_not_taken_again(client, refused, path) -> None:
    refused(await client.post(f"{path}/secret/rotate", json={"secret": SECRET}), "secret")
    await client.post(f"{path}/secret/rotate", json={"secret": SECRET_2})
    refused(await client.post(f"{path}/secret/rotate", json={"secret": SECRET}), "secret")


async def test_a_key_in_force_is_not_taken_again_in_its_other_form(client, refused, path) -> None:
    await client.post(f"{path}/secret/rotate", json={"secret": PRIVATE})
    seed = "whsk_" + base64.b64encode(SEED).decode()
    refused(await client.post(f"{path}/secret/rotate", json={"secret": seed}), "secret")


async def test_no_more_than_five_secrets_sign_at_once(client, problem, path) -> None:
    for _ in range(4):
        assert (await client.post(f"{path}/secret/rotate")).status_code == 200
    document = problem(await client.post(f"{path}/secret/rotate"), "conflict", 409)
    assert "overlap_seconds 0" in document["detail"]
    ended = await client.post(f"{path}/secret/rotate", json={"overlap_seconds": 0})
    assert ended.status_code == 200


async def test_a_rotation_refuses_what_it_does_not_know(client, refused, problem, path) -> None:
    sent = {"overlap_seconds": -1, "secret": "whpk_AAAA", "signature": "x", "overlap": 1}
    refused(await client.post(f"{path}/secret/rotate", json=sent), *sent)
    refused(
        await client.post(f"{path}/secret/rotate", json={"overlap_seconds": 604_801}),
        "overlap_seconds",
    )
    problem(await client.post(f"{path}/secret/rotate", content=b"x"), "unsupported-media-type", 415)
    assert (await client.get(f"{path}/secret")).json()["secret"] == SECRET


# --- where an outbox begins, and what is skipped of it -------------------------------------------


async def outbox_of(services, subscription_id) -> list[str]:
    return [entry.position for entry in await services.outboxes.read(subscription_id, "-", 100)]


@pytest.fixture
async def past(services) -> list[str]:
    positions = [f"{milliseconds}-0" for milliseconds in (1795424001123, 1795424002000)]
    for position in positions:
        fields = {"t": "course.created", "i": "int_a", "c": "c", "x": "x" * 12, "s": 5, "p": 0}
        await services.redis.xadd(
            keys.EVENTS, {**fields, "m": '{"labels":{"a":"b"}}', "b": "{}"}, id=position
        )
    return positions


@pytest.mark.parametrize(
    ("begins", "count"),
    [("oldest", 2), ("now", 0), ("2026-11-23T08:53:21.124Z", 1), ("2026-11-23T09:53:22+01:00", 1)],
)
async def test_an_outbox_begins_where_it_is_told_to(client, services, past, begins, count) -> None:
    answer = await client.post("/v1/subscriptions", json={**MINIMAL, "from": begins})
    assert answer.status_code == 201, answer.text
    created = answer.json()
    assert created["pending"] == count
    assert await outbox_of(services, created["id"]) == past[2 - count :]


async def test_labels_are_compared_with_those_that_the_event_had(client, services, past) -> None:
    for labels, count in (({"a": "b"}, 2), ({"a": "c"}, 0)):
        sent = {**MINIMAL, "from": "oldest", "labels": labels}
        answer = await client.post("/v1/subscriptions", json=sent)
        assert answer.json()["pending"] == count


@pytest.mark.parametrize("begins", ["yesterday", 5, "2999-01-01T00:00:00Z", "2026-11-23T08:53:21"])
async def test_a_beginning_that_is_none_is_refused(client, refused, begins) -> None:
    sent = {**MINIMAL, "from": begins}
    refused(await client.post("/v1/subscriptions", json=sent), "from")


async def test_the_beginning_cannot_be_changed_later(client, refused, path) -> None:
    errors = refused(await client.patch(path, json={"from": "oldest"}), "from")
    assert "replays" in errors["from"]["remedy"]


async def test_pending_deliveries_are_skipped(client, services, problem, refused, past) -> None:
    created = (await client.post("/v1/subscriptions", json={**MINIMAL, "from": "oldest"})).json()
    path = f"/v1/subscriptions/{created['id']}/skip"
    refused(await client.post(path, json={"until": "soon"}), "until")
    answer = await client.post(path, json={"until": "2026-11-23T08:53:21.123Z"})
    assert answer.json() == {"skipped": 1, "pending": 1}
    assert await outbox_of(services, created["id"]) == past[1:]
    assert (await client.post(path)).json() == {"skipped": 1, "pending": 0}
    problem(await client.post("/v1/subscriptions/sub_x/skip"), "not-found", 404)
