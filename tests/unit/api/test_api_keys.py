from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from redis.exceptions import OutOfMemoryError

from service.api.access.auth_throttle import MAX_FAILURES
from service.domain.access.grants import Scope
from service.domain.delivery.event_types import EVENT_TYPES
from service.domain.events.event import CourseFacts
from service.storage.redis import keys
from service.storage.security import api_keys

SUBSCRIPTION = {"url": "https://receiver.example/hook"}
INTEGRATION = {"base_url": "https://a.example", "api_key": "k"}


@pytest.fixture
def now(services, monkeypatch):
    """The clock by which verified keys are remembered."""
    at = [1_000.0]
    monkeypatch.setattr(services.api_keys.recent, "clock", lambda: at[0])
    return at


@pytest.fixture
async def integrations(client) -> dict[str, str]:
    """One integration of tenant a and one of tenant b."""
    made = {}
    for tenant in "ab":
        answer = await client.post(
            "/v1/integrations",
            json={
                **INTEGRATION,
                "name": tenant,
                "upstream_id": f"w:{tenant}",
                "labels": {"tenant": tenant},
            },
        )
        assert answer.status_code == 201, answer.text
        made[tenant] = answer.json()["id"]
    return made


async def append(services, integration_id: str, tenant: str, event_type: str = "course.created"):
    facts = CourseFacts(
        integration_id=integration_id,
        upstream_id="w",
        external_id=None,
        labels={"tenant": tenant},
        course_id="c1",
        remote_id=None,
        origin_id=None,
        changed=(),
        reason=None,
        evidence=None,
        initial=False,
        detected_by="delta",
    )
    position = await services.redis.xadd(
        keys.EVENTS,
        {
            "t": event_type,
            "i": integration_id,
            "c": "c1" if event_type.startswith("course.") else "",
            "x": "abcdefghjkmn",
            "s": 5,
            "p": 0,
            "m": msgspec.json.encode(facts),
            "b": b'{"id":"c1"}',
        },
    )
    (event,) = await services.events.get_many([position.decode()])
    return event.id


# --- the keys themselves --------------------------------------------------------------------


async def test_the_token_is_told_once_and_only_its_hash_is_kept(client, open_key, services) -> None:
    key = await open_key("read")
    token = key["token"]
    assert token.startswith(key["prefix"] + "_")
    assert len(token) - len(key["prefix"]) > 50
    for path in (f"/v1/api-keys/{key['id']}", "/v1/api-keys"):
        answer = await client.get(path)
        assert answer.status_code == 200
        assert token not in answer.text
    stored = await services.redis.hgetall(keys.api_key(key["id"]))
    assert token.rpartition("_")[2].encode() not in b"".join(stored.values())


async def test_keys_are_listed_with_what_they_open(client, open_key, integrations) -> None:
    await open_key("metrics")
    granted = {"integration_ids": [integrations["a"]], "labels": {"tenant": "b"}}
    await open_key("subscriber", expires_at="2126-01-01T00:00:00Z", **granted)
    page = (await client.get("/v1/api-keys?limit=1")).json()
    assert [one["scope"] for one in page["items"]] == ["metrics"]
    assert page["items"][0]["integration_ids"] is None
    (second,) = (await client.get(f"/v1/api-keys?after={page['next']}")).json()["items"]
    assert {name: second[name] for name in granted} == granted
    assert second["expires_at"] == "2126-01-01T00:00:00.000Z"
    assert second["last_used_at"] is None
    assert "token" not in second


async def test_what_makes_no_sense_is_refused(client, refused) -> None:
    async def create(**fields):
        return await client.post("/v1/api-keys", json={"name": "k", **fields})

    refused(await create(), "scope")
    refused(await create(scope="root"), "scope")
    refused(await create(scope="subscriber"), "integration_ids")
    refused(await create(scope="subscriber", labels={}), "integration_ids")
    refused(await create(scope="read", labels={"a": "b"}), "labels")
    refused(await create(scope="subscriber", integration_ids=["int_x"]), "integration_ids[0]")
    refused(await create(scope="read", expires_at="2020-01-01T00:00:00Z"), "expires_at")
    for time in ("tomorrow", 5, "2126-1-1", "2126-01-01T00:00:00", "2126-13-01T00:00:00Z"):
        refused(await create(scope="read", expires_at=time), "expires_at")
    refused(await create(scope="read", token="cwk_mine"), "token")
    dated = await create(scope="read", expires_at="2126-01-01")
    assert dated.json()["expires_at"] == "2126-01-01T00:00:00.000Z"


async def test_a_revoked_key_is_gone(client, open_key, problem) -> None:
    key = await open_key("read")
    assert (await client.get("/v1/status", headers=key["headers"])).status_code == 200
    assert (await client.delete(f"/v1/api-keys/{key['id']}")).status_code == 204
    problem(await client.get("/v1/status", headers=key["headers"]), "unauthorized", 401)
    assert (await client.get("/v1/api-keys")).json()["items"] == []
    problem(await client.get(f"/v1/api-keys/{key['id']}"), "not-found", 404)
    problem(await client.delete(f"/v1/api-keys/{key['id']}"), "not-found", 404)
    problem(await client.patch(f"/v1/api-keys/{key['id']}", json={}), "not-found", 404)


async def test_a_rotated_key_keeps_what_it_owns_under_its_new_token_alone(
    client, open_key, problem
) -> None:
    key = await open_key()
    made = await client.post("/v1/subscriptions", json=SUBSCRIPTION, headers=key["headers"])
    path = made.headers["location"]
    answer = await client.post(f"/v1/api-keys/{key['id']}/token/rotate")
    rotated = answer.json()
    assert (rotated["id"], rotated["labels"]) == (key["id"], key["labels"])
    problem(await client.get(path, headers=key["headers"]), "unauthorized", 401)
    headers = {"authorization": f"Bearer {rotated['token']}"}
    assert (await client.get(path, headers=headers)).status_code == 200
    problem(await client.post("/v1/api-keys/key_x/token/rotate"), "not-found", 404)


async def test_a_revocation_elsewhere_takes_effect_within_a_second(
    client, open_key, services, now, problem
) -> None:
    key = await open_key("read")
    await client.get("/v1/status", headers=key["headers"])
    await services.redis.delete(keys.api_key(key["id"]))
    now[0] += 0.9
    assert (await client.get("/v1/status", headers=key["headers"])).status_code == 200
    now[0] += 0.2
    problem(await client.get("/v1/status", headers=key["headers"]), "unauthorized", 401)


async def test_a_key_that_is_known_costs_no_command(
    client, open_key, services, now, monkeypatch
) -> None:
    key = await open_key("read")
    await services.api_keys.holder(key["token"])

    async def fail(*_arguments, **_options):
        raise AssertionError("a command was sent")

    monkeypatch.setattr(services.redis, "execute_command", fail)
    assert (await services.api_keys.holder(key["token"])).scope is Scope.READ
    assert await services.api_keys.holder(key["token"][:-1] + "_") is None


async def test_an_expired_key_opens_nothing(client, open_key, problem, monkeypatch) -> None:
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    key = await open_key("read", expires_at=soon)
    assert (await client.get("/v1/status", headers=key["headers"])).status_code == 200
    later = datetime.now(UTC) + timedelta(hours=2)
    monkeypatch.setattr(api_keys, "now_ms", lambda: int(later.timestamp() * 1000))
    problem(await client.get("/v1/status", headers=key["headers"]), "unauthorized", 401)


@pytest.mark.parametrize("change", [lambda t: t[:-1], lambda t: t[:-1] + "!", lambda t: t + "0"])
async def test_no_other_token_of_a_key_opens_anything(client, open_key, problem, change) -> None:
    token = (await open_key("admin"))["token"]
    other = token[:-1] + ("0" if token[-1] != "0" else "1")
    for wrong in (change(token), other):
        headers = {"authorization": f"Bearer {wrong}"}
        problem(await client.get("/v1/status", headers=headers), "unauthorized", 401)


async def test_use_is_noted_at_most_once_a_minute(client, open_key, services, now) -> None:
    key = await open_key("read")

    async def used() -> str | None:
        await client.get("/v1/status", headers=key["headers"])
        now[0] += 2
        return (await client.get(f"/v1/api-keys/{key['id']}")).json()["last_used_at"]

    first = await used()
    assert first is not None
    assert await used() == first
    before = int(await services.redis.hget(keys.api_key(key["id"]), "last_used_at"))
    await services.redis.hset(keys.api_key(key["id"]), "last_used_at", before - 60_001)
    assert await used() >= first


async def test_use_that_cannot_be_noted_keeps_nobody_out(client, open_key, monkeypatch) -> None:
    key = await open_key("read")

    async def full(*_arguments, **_options):
        raise OutOfMemoryError

    monkeypatch.setattr("service.storage.security.api_keys.run", full)
    assert (await client.get("/v1/status", headers=key["headers"])).status_code == 200


async def test_wrong_tokens_are_limited_and_right_ones_are_not(client, open_key, problem) -> None:
    key = await open_key("read")
    wrong = {"authorization": "Bearer wrong"}
    for _ in range(MAX_FAILURES):
        problem(await client.get("/v1/status", headers=wrong), "unauthorized", 401)
    answer = await client.get("/v1/status", headers=wrong)
    problem(answer, "too-many-failures", 429)
    assert 0 < int(answer.headers["retry-after"]) <= 60
    assert (await client.get("/v1/status", headers=key["headers"])).status_code == 200
    assert (await client.get("/v1/status")).status_code == 200


# --- subscribers ----------------------------------------------------------------------------


async def test_a_subscriber_has_its_own_subscriptions_and_sees_no_other(
    client, open_key, problem
) -> None:
    one, other = await open_key(), await open_key()
    theirs = (await client.post("/v1/subscriptions", json=SUBSCRIPTION)).json()
    answer = await client.post("/v1/subscriptions", json=SUBSCRIPTION, headers=one["headers"])
    own = answer.json()
    assert (answer.status_code, own["owner"], theirs["owner"]) == (201, one["id"], None)
    listed = (await client.get("/v1/subscriptions", headers=one["headers"])).json()
    assert [found["id"] for found in listed["items"]] == [own["id"]]
    assert (await client.get("/v1/subscriptions", headers=other["headers"])).json()["items"] == []
    assert len((await client.get("/v1/subscriptions")).json()["items"]) == 2

    missing = await client.get("/v1/subscriptions/sub_x", headers=one["headers"])
    for path, method in (
        ("", "GET"),
        ("", "PATCH"),
        ("", "DELETE"),
        ("/secret", "GET"),
        ("/secret/rotate", "POST"),
        ("/test", "POST"),
    ):
        answer = await client.request(
            method, f"/v1/subscriptions/{theirs['id']}{path}", headers=one["headers"], json={}
        )
        document = problem(answer, "not-found", 404)
        assert document["detail"].replace(theirs["id"], "sub_x") == missing.json()["detail"]
    for subscription, status in ((own, 200), (theirs, 404)):
        answer = await client.get(
            f"/v1/deliveries?subscription_id={subscription['id']}", headers=one["headers"]
        )
        assert answer.status_code == status
    path = f"/v1/subscriptions/{own['id']}"
    assert (await client.get(f"{path}/secret", headers=one["headers"])).status_code == 200
    answer = await client.patch(path, json={"owner": None}, headers=one["headers"])
    assert answer.status_code == 422
    assert (await client.delete(path, headers=one["headers"])).status_code == 204


async def test_own_subscriptions_are_listed_in_pages(client, open_key) -> None:
    key, ids = await open_key(), []
    for _ in range(3):
        await client.post("/v1/subscriptions", json=SUBSCRIPTION)
        made = await client.post("/v1/subscriptions", json=SUBSCRIPTION, headers=key["headers"])
        ids.append(made.json()["id"])
    first = (await client.get("/v1/subscriptions?limit=2", headers=key["headers"])).json()
    second = (
        await client.get(f"/v1/subscriptions?after={first['next']}", headers=key["headers"])
    ).json()
    found = [one["id"] for one in first["items"] + second["items"]]
    assert (sorted(found), len(first["items"]), second["next"]) == (sorted(ids), 2, None)


async def test_a_subscriber_learns_of_no_integration_that_is_not_granted(
    client, open_key, integrations, refused
) -> None:
    key = await open_key()

    async def subscribe(*ids):
        return await client.post(
            "/v1/subscriptions",
            json={**SUBSCRIPTION, "integration_ids": ids},
            headers=key["headers"],
        )

    assert (await subscribe(integrations["a"])).status_code == 201
    (foreign,) = refused(await subscribe(integrations["b"]), "integration_ids[0]").values()
    (missing,) = refused(await subscribe("int_x"), "integration_ids[0]").values()
    assert foreign["message"].replace(integrations["b"], "int_x") == missing["message"]


async def test_what_happens_to_integrations_is_not_for_subscribers(
    client, open_key, refused
) -> None:
    key = await open_key()
    body = {**SUBSCRIPTION, "event_types": EVENT_TYPES}
    assert (await client.post("/v1/subscriptions", json=body)).status_code == 201
    errors = refused(
        await client.post("/v1/subscriptions", json=body, headers=key["headers"]),
        *(f"event_types[{n}]" for n, one in enumerate(EVENT_TYPES) if "integration." in one),
    )
    assert errors
    allowed = [one for one in EVENT_TYPES if "integration." not in one]
    answer = await client.post(
        "/v1/subscriptions", json={**body, "event_types": allowed}, headers=key["headers"]
    )
    assert answer.status_code == 201


async def test_a_subscriber_pulls_what_is_granted_alone(
    client, open_key, services, integrations, problem
) -> None:
    a = await append(services, integrations["a"], "a")
    b = await append(services, integrations["b"], "b")
    review = await append(services, integrations["a"], "a", "integration.review_required")
    by_label = await open_key()
    by_id = await open_key(integration_ids=[integrations["b"]])
    for key, own in ((by_label, a), (by_id, b)):
        for query in ("", "?order=desc", "?payload=thin"):
            page = (await client.get(f"/v1/events{query}", headers=key["headers"])).json()
            assert [item["data"]["event_id"] for item in page["items"]] == [own]
        for event in {a, b, review} - {own}:
            answer = await client.get(f"/v1/events/{event}", headers=key["headers"])
            problem(answer, "not-found", 404)
        assert (await client.get(f"/v1/events/{own}", headers=key["headers"])).status_code == 200
    everything = (await client.get("/v1/events")).json()["items"]
    assert [item["data"]["event_id"] for item in everything] == [a, b, review]


async def test_a_narrowed_grant_shows_less(client, open_key, services, integrations, now) -> None:
    a, b = [await append(services, integrations[name], name) for name in "ab"]
    key = await open_key(integration_ids=list(integrations.values()))
    path = f"/v1/api-keys/{key['id']}"

    async def seen() -> list[str]:
        page = (await client.get("/v1/events", headers=key["headers"])).json()
        return [item["data"]["event_id"] for item in page["items"]]

    assert await seen() == [a, b]
    answer = await client.patch(path, json={"integration_ids": [integrations["b"]]})
    assert answer.json()["integration_ids"] == [integrations["b"]]
    assert await seen() == [b]
    await client.patch(path, json={"integration_ids": None, "labels": {"tenant": "a"}})
    assert await seen() == [a]


async def test_a_grant_is_never_edited_away(client, open_key, refused) -> None:
    subscriber, reader = await open_key(), await open_key("read")
    path = f"/v1/api-keys/{subscriber['id']}"
    refused(await client.patch(path, json={"labels": None}), "labels")
    refused(await client.patch(path, json={"scope": "admin"}), "scope")
    path = f"/v1/api-keys/{reader['id']}"
    refused(await client.patch(path, json={"labels": {"a": "b"}}), "labels")
    changed = (await client.patch(path, json={"name": "other"})).json()
    assert (changed["name"], changed["scope"]) == ("other", "read")
    assert changed["updated_at"] > reader["updated_at"]


async def test_every_edit_of_a_key_makes_snapshots_of_the_subscriptions_stale(
    client, open_key, services
) -> None:
    key = await open_key()
    path = f"/v1/api-keys/{key['id']}"
    await client.patch(path, json={"labels": {"tenant": "b"}})
    first, _, (known,) = await services.subscriptions.all_for_matching()
    assert known.grant.labels == {"tenant": "b"}
    await client.delete(path)
    second, _, none_known = await services.subscriptions.all_for_matching()
    assert (second > first, none_known) == (True, [])
