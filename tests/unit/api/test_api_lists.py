"""Lists of registrations: filtered, paged while they change, and bounded."""

from __future__ import annotations

import pytest

INTEGRATION = {"base_url": "https://a.example", "api_key": "k"}


@pytest.fixture
def register(client):
    async def register(name, **fields):
        content = {
            **INTEGRATION,
            "name": name,
            "upstream_id": f"w:{name.replace(' ', '-')}",
            **fields,
        }
        answer = await client.post("/v1/integrations", json=content)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    return register


@pytest.fixture
def subscribe(client):
    async def subscribe(description, **fields):
        content = {"url": "https://r.example/hook", "description": description, **fields}
        answer = await client.post("/v1/subscriptions", json=content)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    return subscribe


async def ids(client, path, **query) -> list[str]:
    """All that a list shows, a page after the other."""
    found = []
    while True:
        answer = await client.get(path, params=query)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert len(page["items"]) <= query.get("limit", 50)
        found += [item["id"] for item in page["items"]]
        if page["next"] is None:
            return found
        query["after"] = page["next"]


async def test_integrations_are_filtered_by_state_name_and_labels(client, register) -> None:
    acme = await register("Acme", labels={"region": "eu", "tier": "a=b"})
    ajax = await register("Ajax", labels={"region": "us"}, external_id="sister of acme")
    paused = await register("Third", labels={"region": "eu"}, paused=True)

    async def found(**query):
        return await ids(client, "/v1/integrations", **query)

    assert await found() == [acme, ajax, paused]
    assert await found(name="ACME") == [acme, ajax]
    assert await found(name="nobody") == []
    assert await found(label="region=eu") == [acme, paused]
    assert await found(label=["region=eu", "tier=a=b"]) == [acme]
    assert await found(label="region=") == []
    assert await found(state="paused") == [paused]
    assert await found(state="pending,paused") == [acme, ajax, paused]
    assert await found(state="pending", label="region=eu", name="a") == [acme]


async def test_subscriptions_are_filtered_by_state_name_and_labels(
    client, services, subscribe
) -> None:
    first = await subscribe("Search", labels={"region": "eu"})
    second = await subscribe("Reports", url="https://search.example/", paused=True)
    third = await subscribe("Other", labels={"region": "eu", "tier": "a"})

    async def found(**query):
        return await ids(client, "/v1/subscriptions", **query)

    assert await found(name="search") == [first, second]
    assert await found(label="region=eu") == [first, third]
    assert await found(label=["region=eu", "tier=a"]) == [third]
    assert await found(state="paused") == [second]
    assert await found(state="active") == [first, third]
    assert await found(state="parked") == []


async def test_a_subscriber_filters_its_own_alone(client, open_key, subscribe) -> None:
    await subscribe("search of others")
    key = await open_key()
    content = {"url": "https://r.example", "description": "my search"}
    answer = await client.post("/v1/subscriptions", json=content, headers=key["headers"])
    listed = await client.get("/v1/subscriptions?name=search", headers=key["headers"])
    assert [item["id"] for item in listed.json()["items"]] == [answer.json()["id"]]


@pytest.mark.parametrize("path", ["/v1/integrations", "/v1/subscriptions"])
async def test_wrong_filters_are_refused_at_once(client, refused, path) -> None:
    query = {"state": "broken", "label": "region", "name": "", "limit": "501", "after": "x"}
    refused(await client.get(path, params=query), "state[0]", "label", "name", "limit", "after")
    refused(await client.get(f"{path}?limit=0"), "limit")


async def test_pages_stay_right_while_things_come_and_go(client, register) -> None:
    kept = [await register(f"kept {number}") for number in range(6)]
    query = {"name": "kept", "limit": 2}
    page = (await client.get("/v1/integrations", params=query)).json()
    seen = [item["id"] for item in page["items"]]
    # One that was seen goes, one that is to come goes, and another comes.
    for gone in (kept[1], kept[3]):
        assert (await client.delete(f"/v1/integrations/{gone}")).status_code == 204
    late = await register("kept, and late")
    await register("another")
    rest = await ids(client, "/v1/integrations", **query, after=page["next"])
    assert seen + rest == [kept[0], kept[1], kept[2], kept[4], kept[5], late]


async def test_a_filter_looks_through_more_than_a_page(client, register, monkeypatch) -> None:
    monkeypatch.setattr("service.api.resources.filtering.READ_AT_ONCE", 2)
    wanted = []
    for number in range(7):
        name = "rare" if number % 3 == 0 else "common"
        found = await register(f"{name} {number}")
        wanted += [found] if name == "rare" else []
    assert await ids(client, "/v1/integrations", name="rare", limit=1) == wanted
    assert await ids(client, "/v1/integrations", name="rare") == wanted


async def test_a_filtered_page_ends_where_it_has_looked_through_its_part(
    client, register, monkeypatch
) -> None:
    monkeypatch.setattr("service.api.resources.filtering.READ_AT_ONCE", 2)
    monkeypatch.setattr("service.api.resources.filtering.MAX_EXAMINED", 4)
    for number in range(5):
        await register(f"common {number}")
    wanted = await register("rare")
    page = (await client.get("/v1/integrations", params={"name": "rare"})).json()
    assert page["items"] == []
    assert await ids(client, "/v1/integrations", name="rare", after=page["next"]) == [wanted]
    assert await ids(client, "/v1/integrations", name="none") == []


async def test_there_are_no_more_integrations_than_allowed(
    client, services, problem, register, monkeypatch
) -> None:
    monkeypatch.setattr(services.integrations, "most", 2)
    first, _ = [await register(f"number {number}") for number in range(2)]
    before = (await client.get("/v1/credentials")).json()["items"]
    content = {**INTEGRATION, "name": "c", "upstream_id": "w:c"}
    answer = await client.post("/v1/integrations", json=content)
    detail = problem(answer, "limit-reached", 409)["detail"]
    assert "COURSEWIRE_MAX_INTEGRATIONS" in detail
    # No credential of its own is left behind, and what is there can be edited.
    assert (await client.get("/v1/credentials")).json()["items"] == before
    assert (await client.patch(f"/v1/integrations/{first}", json={"name": "d"})).status_code == 200
    await client.delete(f"/v1/integrations/{first}")
    assert (await client.post("/v1/integrations", json=content)).status_code == 201


async def test_there_are_no_more_subscriptions_than_allowed(
    client, services, problem, subscribe, monkeypatch
) -> None:
    monkeypatch.setattr(services.subscriptions, "most", 1)
    first = await subscribe("first")
    for more in ({}, {"from": "oldest"}):
        content = {"url": "https://r.example", **more}
        answer = await client.post("/v1/subscriptions", json=content)
        detail = problem(answer, "limit-reached", 409)["detail"]
        assert "COURSEWIRE_MAX_SUBSCRIPTIONS" in detail
    answer = await client.patch(f"/v1/subscriptions/{first}", json={"paused": True})
    assert answer.status_code == 200
    await client.delete(f"/v1/subscriptions/{first}")
    await subscribe("second")


def test_the_numbers_are_those_of_the_settings(services, settings) -> None:
    assert services.integrations.most == settings.max_integrations
    assert services.subscriptions.most == settings.max_subscriptions
