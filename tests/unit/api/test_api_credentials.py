from __future__ import annotations

import pytest

from service.api.resources.credentials import upstream_check
from service.clients.address_guard import AddressGuard
from service.domain.errors import TargetRefusedError

VALUES = {"name": "EU", "base_url": "https://api.kombo.dev/v1", "api_key": "key-1"}


@pytest.fixture
async def credential(client) -> dict:
    return (await client.post("/v1/credentials", json=VALUES)).json()


async def test_a_credential_is_created_at_its_location_without_its_key(client) -> None:
    answer = await client.post("/v1/credentials", json=VALUES)
    assert answer.status_code == 201
    created = answer.json()
    assert created["id"].startswith("cred_")
    assert (created["name"], created["base_url"]) == (VALUES["name"], VALUES["base_url"])
    assert "api_key" not in created
    assert created["created_at"].endswith("Z")
    assert answer.headers["location"] == f"/v1/credentials/{created['id']}"
    shown = await client.get(answer.headers["location"])
    assert shown.json() == created
    assert "key-1" not in shown.text


async def test_the_key_is_what_the_upstream_is_asked_with(client, services, credential) -> None:
    assert (await services.credentials.decrypt(credential["id"])).api_key == "key-1"


async def test_every_wrong_field_is_named_at_once(client, refused) -> None:
    answer = await client.post(
        "/v1/credentials",
        json={"name": "", "base_url": "http://169.254.169.254/", "apikey": "x", "id": "cred_1"},
    )
    errors = refused(answer, "name", "base_url", "apikey", "api_key", "id")
    assert errors["apikey"]["remedy"] == "did you mean api_key?"
    assert errors["id"]["message"] == "is read-only"
    assert "COURSEWIRE_ALLOWED_TARGETS" in errors["base_url"]["remedy"]


@pytest.mark.parametrize(
    "base_url",
    [
        "ftp://x.example/",
        "nonsense",
        "https://user:pw@x.example/",
        "https://x.example/?a=b",
        "https://x.example/#part",
        "http://[::1]/",
        "http://localhost/",
        "http://2130706433/",
        "https://x.example:70000/",
        "https://",
        "",
        7,
        None,
        "https://x.example/" + "a" * 3000,
        "http://api.kombo.dev/v1",
        "http://93.184.215.14/v1",
        "http://hooks.example/v1",
    ],
)
async def test_a_base_url_that_cannot_be_used_is_refused(client, refused, base_url) -> None:
    refused(await client.post("/v1/credentials", json={**VALUES, "base_url": base_url}), "base_url")


async def test_the_same_place_is_stored_under_the_same_base_url(client) -> None:
    answer = await client.post(
        "/v1/credentials", json={**VALUES, "base_url": "HTTPS://API.Kombo.dev:443/v1/"}
    )
    assert answer.json()["base_url"] == VALUES["base_url"]


async def test_an_allowed_name_is_accepted(client) -> None:
    answer = await client.post(
        "/v1/credentials", json={**VALUES, "base_url": "http://hooks.internal/v1"}
    )
    assert answer.status_code == 201


async def test_a_key_does_not_cross_the_public_network_in_clear(client, refused) -> None:
    answer = await client.post(
        "/v1/credentials", json={**VALUES, "base_url": "http://api.kombo.dev/v1"}
    )
    assert refused(answer, "base_url")["base_url"]["remedy"].startswith("use https://")


@pytest.mark.parametrize("url", ["http://127.0.0.1:8090/v1", "http://localhost:8090/v1"])
def test_an_excepted_network_may_be_spoken_to_in_clear(url) -> None:
    upstream_check(AddressGuard(["127.0.0.0/8"]))(url)
    with pytest.raises(TargetRefusedError):
        upstream_check(AddressGuard())(url)


async def test_a_patch_changes_only_what_is_sent(client, services, credential) -> None:
    path = f"/v1/credentials/{credential['id']}"
    answer = await client.patch(path, json={"name": "renamed"})
    assert answer.status_code == 200
    assert answer.json()["name"] == "renamed"
    assert answer.json()["base_url"] == credential["base_url"]
    assert (await services.credentials.decrypt(credential["id"])).api_key == "key-1"
    await client.patch(path, json={"api_key": "key-2"})
    assert (await services.credentials.decrypt(credential["id"])).api_key == "key-2"


async def test_a_patch_is_checked_like_a_creation(client, refused, credential) -> None:
    path = f"/v1/credentials/{credential['id']}"
    refused(
        await client.patch(path, json={"name": None, "base_url": "http://10.0.0.1"}),
        "name",
        "base_url",
    )


async def test_credentials_are_listed_in_pages(client) -> None:
    created = [
        (await client.post("/v1/credentials", json={**VALUES, "name": f"n{number}"})).json()
        for number in range(5)
    ]
    seen, cursor = [], ""
    while cursor is not None:
        page = (await client.get(f"/v1/credentials?limit=2{cursor}")).json()
        seen += page["items"]
        assert len(page["items"]) <= 2
        cursor = page["next"] and f"&after={page['next']}"
    assert sorted(seen, key=lambda one: one["id"]) == sorted(created, key=lambda one: one["id"])


async def test_a_credential_in_use_is_not_deleted(client, problem, credential) -> None:
    registration = {"name": "a", "upstream_id": "w:1", "credential_id": credential["id"]}
    integration = (await client.post("/v1/integrations", json=registration)).json()
    path = f"/v1/credentials/{credential['id']}"
    assert "delete" in problem(await client.delete(path), "credential-in-use", 409)["detail"]
    await client.delete(f"/v1/integrations/{integration['id']}")
    assert (await client.delete(path)).status_code == 204
    problem(await client.get(path), "not-found", 404)


async def test_what_keeps_a_credential_is_named(client, problem, credential) -> None:
    made = []
    for number in range(23):
        registration = {"name": f"n{number}", "upstream_id": f"w:{number}"}
        answer = await client.post(
            "/v1/integrations", json={**registration, "credential_id": credential["id"]}
        )
        made.append(answer.json())
    document = problem(
        await client.delete(f"/v1/credentials/{credential['id']}"), "credential-in-use", 409
    )
    assert document["integration_count"] == 23
    named = [(one["id"], one["name"]) for one in document["integrations"]]
    assert len(named) == len(set(named)) == 20
    assert set(named) <= {(one["id"], one["name"]) for one in made}
    assert "23 integrations still use" in document["detail"]


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_an_unknown_credential_is_not_found(client, problem, method) -> None:
    body = {"json": {}} if method == "PATCH" else {}
    answer = await client.request(method, "/v1/credentials/cred_none", **body)
    assert "cred_none" in problem(answer, "not-found", 404)["detail"]
