from __future__ import annotations

import json

from redis.exceptions import OutOfMemoryError

from service.api.access.auth_throttle import MAX_FAILURES
from service.storage.security.audit import AuditRecord

CREDENTIAL = {"name": "a", "base_url": "https://a.example", "api_key": "top-secret-key"}


async def trail(client, query: str = "") -> list[dict]:
    answer = await client.get(f"/v1/audit{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


async def test_changes_are_noted_with_who_what_and_which_fields(client, open_key) -> None:
    created = await client.post("/v1/credentials", json=CREDENTIAL)
    path = created.headers["location"]
    key = await open_key("admin")
    edited = await client.patch(path, json={"name": "b"}, headers=key["headers"])
    await client.delete(path)
    deleted, updated, _, first = await trail(client)
    assert first.pop("at").endswith("Z")
    assert first == {
        "actor": "admin token",
        "action": "credential.created",
        "object_id": created.json()["id"],
        "fields": ["name", "base_url", "api_key"],
        "request_id": created.headers["x-request-id"],
        "address": "testclient",
    }
    assert (updated["actor"], updated["action"]) == (key["id"], "credential.updated")
    assert (updated["fields"], updated["object_id"]) == (["name"], created.json()["id"])
    assert updated["request_id"] == edited.headers["x-request-id"] != first["request_id"]
    assert (deleted["action"], deleted["fields"]) == ("credential.deleted", [])


async def test_no_value_gets_into_the_trail(client) -> None:
    await client.post("/v1/credentials", json=CREDENTIAL)
    headers = {"x-api-key": "header-secret"}
    body = {"url": "https://r.example/secret-path", "headers": headers}
    await client.post("/v1/subscriptions", json=body)
    text = json.dumps(await trail(client))
    assert not any(value in text for value in ("top-secret-key", "header-secret", "secret-path"))


async def test_what_changed_nothing_is_not_noted(client) -> None:
    await client.post("/v1/credentials", json={})
    await client.patch("/v1/credentials/cred_x", json={"name": "b"})
    await client.delete("/v1/subscriptions/sub_x")
    await client.get("/v1/subscriptions")
    await client.post("/v1/credentials", json=CREDENTIAL, headers={"authorization": "Bearer no"})
    check = {"upstream_id": "w:1", "base_url": "https://a.example", "api_key": "k"}
    assert (await client.post("/v1/integrations/check", json=check)).status_code == 200
    assert await trail(client) == []


async def test_a_burst_of_wrong_tokens_is_noted_once(client) -> None:
    for _ in range(MAX_FAILURES + 5):
        await client.get("/v1/status", headers={"authorization": "Bearer wrong"})
    (burst,) = await trail(client)
    assert (burst["action"], burst["actor"]) == ("authentication.failed", None)
    assert burst["address"] == "testclient"


async def test_the_trail_is_read_in_pages_from_its_end(client, services) -> None:
    for number in range(5):
        await services.audit.note(AuditRecord(action=f"a{number}"))
    page = (await client.get("/v1/audit?limit=3")).json()
    assert [one["action"] for one in page["items"]] == ["a4", "a3", "a2"]
    rest = (await client.get(f"/v1/audit?limit=3&after={page['next']}")).json()
    assert ([one["action"] for one in rest["items"]], rest["next"]) == (["a1", "a0"], None)


async def test_a_change_that_cannot_be_noted_is_made_all_the_same(
    client, services, monkeypatch
) -> None:
    async def full(_deed) -> None:
        raise OutOfMemoryError

    monkeypatch.setattr(services.audit, "note", full)
    assert (await client.post("/v1/credentials", json=CREDENTIAL)).status_code == 201
