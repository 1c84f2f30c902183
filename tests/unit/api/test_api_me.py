"""What a token may do, how it is replaced without a gap, and whose subscriptions are."""

from __future__ import annotations

import pytest

from service.clock import now_ms
from service.storage.redis import keys
from service.storage.security import api_keys

INLINE = {"base_url": "https://a.example", "api_key": "upstream-key"}
HOOK = {"url": "https://receiver.example/hook"}


async def register(client, name: str, **fields) -> dict:
    answer = await client.post(
        "/v1/integrations", json={**INLINE, "name": name, "upstream_id": f"w:{name}", **fields}
    )
    assert answer.status_code == 201, answer.text
    return answer.json()


def bearer(token: str) -> dict:
    return {"authorization": f"Bearer {token}"}


# --- GET /v1/me -----------------------------------------------------------------------------


async def test_a_subscriber_is_told_its_grants_and_its_expiry(client, open_key) -> None:
    one = await register(client, "one")
    grants = {"integration_ids": [one["id"]], "labels": {"tenant": "a"}}
    key = await open_key(expires_at="2126-01-01T00:00:00Z", **grants)
    assert (await client.get("/v1/me", headers=key["headers"])).json() == {
        "id": key["id"],
        "name": "k",
        "scope": "subscriber",
        **grants,
        "expires_at": "2126-01-01T00:00:00.000Z",
        "owner": key["id"],
    }


@pytest.mark.parametrize("scope", ["admin", "read", "metrics"])
async def test_other_keys_own_nothing_and_have_no_grants(client, open_key, scope) -> None:
    key = await open_key(scope)
    me = (await client.get("/v1/me", headers=key["headers"])).json()
    assert (me["id"], me["scope"]) == (key["id"], scope)
    assert [me[name] for name in ("integration_ids", "labels", "expires_at", "owner")] == [None] * 4


async def test_a_token_of_the_settings_is_no_api_key(anonymous, settings) -> None:
    for token, name, scope in (
        (settings.admin_token, "admin token", "admin"),
        (settings.previous_admin_token, "previous admin token", "admin"),
        (settings.metrics_token, "metrics token", "metrics"),
    ):
        me = (await anonymous.get("/v1/me", headers=bearer(token))).json()
        assert (me["id"], me["name"], me["scope"]) == (None, name, scope)


async def test_two_admin_tokens_may_do_everything(client, settings) -> None:
    headers = bearer(settings.previous_admin_token)
    assert (await client.get("/v1/audit", headers=headers)).status_code == 200
    made = await client.post("/v1/api-keys", json={"name": "k", "scope": "read"}, headers=headers)
    assert made.status_code == 201
    (noted, *_) = (await client.get("/v1/audit")).json()["items"]
    assert noted["actor"] == "previous admin token"


# --- GET /v1/me/integrations ----------------------------------------------------------------


async def test_a_subscriber_sees_how_the_integrations_go_that_it_was_granted(
    client, open_key, services
) -> None:
    one = await register(client, "one", labels={"tenant": "a"}, external_id="t-1")
    await register(client, "two", labels={"tenant": "b"})
    three = await register(client, "three", paused=True)
    key = await open_key(integration_ids=[three["id"]], labels={"tenant": "a"})
    at = now_ms() - 90_000
    await services.redis.hset(keys.integration(one["id"]), "last_delta_at", at)

    page = (await client.get("/v1/me/integrations", headers=key["headers"])).json()

    assert [found["id"] for found in page["items"]] == [one["id"], three["id"]]
    first, second = page["items"]
    assert 90 <= first.pop("behind_seconds") < 100
    assert first.pop("last_completed_at").endswith("Z")
    assert first == {
        "id": one["id"],
        "name": "one",
        "upstream_id": "w:one",
        "external_id": "t-1",
        "labels": {"tenant": "a"},
        "state": "pending",
        "delta_interval_seconds": 60,
    }
    assert (second["state"], second["behind_seconds"]) == ("paused", None)


async def test_the_granted_integrations_come_in_pages(client, open_key) -> None:
    made = [
        (await register(client, f"n{number}", labels={"tenant": "ab"[number % 2]}))["id"]
        for number in range(6)
    ]
    headers = (await open_key(labels={"tenant": "a"}))["headers"]
    seen, cursor = [], ""
    while cursor is not None:
        page = (await client.get(f"/v1/me/integrations?limit=1{cursor}", headers=headers)).json()
        seen += [one["id"] for one in page["items"]]
        cursor = page["next"] and f"&after={page['next']}"
    assert seen == made[::2]
    everything = (await client.get("/v1/me/integrations")).json()["items"]
    assert [one["id"] for one in everything] == made


# --- replacing a token ----------------------------------------------------------------------


@pytest.fixture
def later(services, monkeypatch):
    """Moves the clock of API keys on by so many seconds."""

    def later(seconds: float) -> None:
        at = now_ms() + int(seconds * 1000)
        monkeypatch.setattr(api_keys, "now_ms", lambda: at)

    return later


async def test_a_rotated_token_stays_valid_as_long_as_asked_for(
    client, open_key, later, problem
) -> None:
    key = await open_key("read")
    answer = await client.post(
        f"/v1/api-keys/{key['id']}/token/rotate", json={"overlap_seconds": 3600}
    )
    assert answer.status_code == 200, answer.text
    rotated = answer.json()
    assert rotated["previous_token_expires_at"].endswith("Z")
    for headers, ends in (
        (key["headers"], rotated["previous_token_expires_at"]),
        (bearer(rotated["token"]), None),
    ):
        assert (await client.get("/v1/me", headers=headers)).json()["expires_at"] == ends
    later(3601)
    problem(await client.get("/v1/me", headers=key["headers"]), "unauthorized", 401)
    assert (await client.get("/v1/me", headers=bearer(rotated["token"]))).status_code == 200
    shown = (await client.get(f"/v1/api-keys/{key['id']}")).json()
    assert shown["previous_token_expires_at"] is None


async def test_an_overlap_does_not_outlast_the_key(client, open_key) -> None:
    key = await open_key("read", expires_at="2126-01-01T00:00:00Z")
    path = f"/v1/api-keys/{key['id']}"
    await client.post(f"{path}/token/rotate", json={"overlap_seconds": 604_800})
    soon = (await client.get(path)).json()["previous_token_expires_at"]
    await client.patch(path, json={"expires_at": "2026-12-31T00:00:00Z"})
    ends = (await client.get("/v1/me", headers=key["headers"])).json()["expires_at"]
    assert ends == min(soon, "2026-12-31T00:00:00.000Z")


async def test_at_most_two_tokens_of_a_key_are_valid(client, open_key, later, problem) -> None:
    key = await open_key("read")
    path = f"/v1/api-keys/{key['id']}/token/rotate"
    second = (await client.post(path, json={"overlap_seconds": 3600})).json()
    refusal = problem(await client.post(path, json={"overlap_seconds": 60}), "conflict", 409)
    assert second["previous_token_expires_at"] in refusal["detail"]
    assert (await client.get("/v1/me", headers=key["headers"])).status_code == 200

    third = (await client.post(path, json={"overlap_seconds": 0})).json()

    assert third["previous_token_expires_at"] is None
    for headers in (key["headers"], bearer(second["token"])):
        problem(await client.get("/v1/me", headers=headers), "unauthorized", 401)
    fourth = (await client.post(path, json={"overlap_seconds": 60})).json()
    for token in (third["token"], fourth["token"]):
        assert (await client.get("/v1/me", headers=bearer(token))).status_code == 200


async def test_an_edit_leaves_an_overlap_as_it_is(client, open_key) -> None:
    key = await open_key("read")
    path = f"/v1/api-keys/{key['id']}"
    await client.post(f"{path}/token/rotate", json={"overlap_seconds": 3600})
    assert (await client.patch(path, json={"name": "renamed"})).status_code == 200
    assert (await client.get("/v1/me", headers=key["headers"])).json()["name"] == "renamed"


@pytest.mark.parametrize("overlap", [-1, 604_801, "x", None])
async def test_an_overlap_is_at_most_a_week(client, open_key, refused, overlap) -> None:
    path = f"/v1/api-keys/{(await open_key('read'))['id']}/token/rotate"
    refused(await client.post(path, json={"overlap_seconds": overlap}), "overlap_seconds")


# --- whose a subscription is ----------------------------------------------------------------


async def test_an_admin_hands_a_subscription_over(client, open_key, services, problem) -> None:
    first, second = await open_key(), await open_key()
    path = (await client.post("/v1/subscriptions", json=HOOK, headers=first["headers"])).headers[
        "location"
    ]
    version = await services.redis.get(keys.SUBSCRIPTIONS_VERSION)

    answer = await client.patch(path, json={"owner": second["id"]})

    assert answer.json()["owner"] == second["id"]
    problem(await client.get(path, headers=first["headers"]), "not-found", 404)
    assert (await client.get(f"{path}/secret", headers=second["headers"])).status_code == 200
    assert await services.redis.get(keys.SUBSCRIPTIONS_VERSION) > version
    assert (await client.patch(path, json={"owner": None})).json()["owner"] is None
    problem(await client.get(path, headers=second["headers"]), "not-found", 404)


async def test_an_admin_creates_a_subscription_for_a_key(client, open_key) -> None:
    key = await open_key()
    made = await client.post(
        "/v1/subscriptions", json={**HOOK, "owner": key["id"], "from": "oldest"}
    )
    assert made.json()["owner"] == key["id"]
    listed = (await client.get("/v1/subscriptions", headers=key["headers"])).json()["items"]
    assert [one["id"] for one in listed] == [made.json()["id"]]


async def test_an_owner_is_a_valid_subscriber_that_an_admin_names(
    client, open_key, refused
) -> None:
    key, reader = await open_key(), await open_key("read")
    path = (await client.post("/v1/subscriptions", json=HOOK)).headers["location"]
    for owner in ("key_none", "x", reader["id"]):
        refused(await client.patch(path, json={"owner": owner}), "owner")
    refused(
        await client.patch(
            path, json={"owner": key["id"], "event_types": ["integration.error", "integration.*"]}
        ),
        "event_types[0]",
        "event_types[1]",
    )
    own = {**HOOK, "owner": key["id"]}
    refused(await client.post("/v1/subscriptions", json=own, headers=key["headers"]), "owner")
    assert (await client.get(path)).json()["owner"] is None


async def test_patterns_of_event_types_are_kept_as_they_were_given(client, open_key) -> None:
    patterns = ["course.*", "subscription.*", "*"]
    wanted = {**HOOK, "event_types": patterns}
    for headers in ((await open_key())["headers"], {}):
        made = await client.post("/v1/subscriptions", json=wanted, headers=headers)
        assert made.status_code == 201, made.text
        shown = (await client.get(made.headers["location"])).json()
        assert shown["event_types"] == patterns
