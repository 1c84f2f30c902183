"""The life of registrations over the API, on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest
from litestar.testing import AsyncTestClient

from service.app import create_app
from service.domain.courses.fingerprint import Fingerprint
from service.settings import Settings
from service.storage.polling.courses import MAX_EXAMINED
from service.storage.redis import keys

pytestmark = pytest.mark.slow

TOKEN = "admin-token-of-this-test"


@pytest.fixture
async def client(redis, valkey_url) -> AsyncIterator[AsyncTestClient]:
    settings = Settings(admin_token=TOKEN, encryption_keys=(b"k" * 32,), redis_url=valkey_url)

    async with AsyncTestClient(create_app(settings)) as client:
        client.headers["authorization"] = f"Bearer {TOKEN}"
        yield client


async def test_registrations_come_and_go_without_a_trace(client, redis) -> None:
    registered = await client.post(
        "/v1/integrations",
        json={"name": "a", "upstream_id": "w:1", "base_url": "https://a.example", "api_key": "k"},
    )
    assert registered.status_code == 201, registered.text
    integration = registered.headers["location"]
    credential = f"/v1/credentials/{registered.json()['credential_id']}"
    subscribed = await client.post(
        "/v1/subscriptions",
        json={"url": "https://r.example", "integration_ids": [registered.json()["id"]]},
    )
    assert subscribed.status_code == 201, subscribed.text
    subscription = subscribed.headers["location"]

    for path, change in (
        (integration, {"labels": {"a": "b"}, "paused": True}),
        (integration, {"upstream_id": "w:2", "paused": False}),
        (credential, {"base_url": "https://b.example", "api_key": "k2"}),
        (subscription, {"paused": True, "headers": {"a": "b"}}),
        (subscription, {"paused": False}),
    ):
        answer = await client.patch(path, json=change)
        assert answer.status_code == 200, answer.text
    assert (await client.post(f"{integration}/polls", json={"kind": "full"})).status_code == 202
    shown = (await client.get(integration)).json()
    assert shown["epoch"] != registered.json()["epoch"]
    assert (await client.get(f"{integration}/courses")).json() == {"items": [], "next": None}

    for key in await redis.keys():
        assert await redis.ttl(key) > 0 or key.decode().startswith(keys.LASTING), key
    for path in (integration, subscription):
        assert (await client.delete(path)).status_code == 204
    assert (await client.get(credential)).status_code == 404  # it went with its last integration
    left = {keys.SUBSCRIPTIONS_VERSION, keys.TOTALS, keys.AUDIT}
    lasting = {key for key in await redis.keys() if await redis.ttl(key) < 0}
    left.add(keys.EVENTS)  # the other upstream began an epoch, which was told
    assert lasting == {key.encode() for key in left}
    assert set((await redis.hgetall(keys.TOTALS)).values()) == {b"0"}


async def test_a_subscriber_comes_and_goes(client, redis) -> None:
    wanted = {"name": "tenant", "scope": "subscriber", "labels": {"tenant": "a"}}
    key = (await client.post("/v1/api-keys", json=wanted)).json()
    token = {"authorization": f"Bearer {key['token']}"}
    made = [
        await client.post(
            "/v1/subscriptions",
            json={"url": "https://r.example"},
            headers={**token, "idempotency-key": "one"},
        )
        for _ in range(2)
    ]
    assert made[0].status_code == 201, made[0].text
    assert made[0].content == made[1].content
    assert made[1].headers["idempotency-replayed"] == "true"
    path, tag = made[0].headers["location"], made[0].headers["etag"]
    assert (await client.patch(path, json={"paused": True})).status_code == 200
    stale = await client.delete(path, headers={**token, "if-match": tag})
    assert stale.status_code == 412
    assert (await client.delete(path, headers=token)).status_code == 204
    (shown,) = (await client.get("/v1/api-keys")).json()["items"]
    assert shown["last_used_at"] is not None
    assert (await client.delete(f"/v1/api-keys/{key['id']}")).status_code == 204
    actions = [one["action"] for one in (await client.get("/v1/audit")).json()["items"]]
    assert actions == [
        "api_key.revoked",
        "subscription.deleted",
        "subscription.updated",
        "subscription.created",
        "api_key.created",
    ]
    for name in await redis.keys():
        assert await redis.ttl(name) > 0 or name.decode().startswith(keys.LASTING), name


async def test_the_status_is_read_from_the_server(client, redis) -> None:
    status = (await client.get("/v1/status")).json()
    assert status["redis"]["up"] is True
    assert status["redis"]["server"] == "valkey"
    assert status["redis"]["memory_used_bytes"] > 0
    metrics = await client.get("/metrics")
    assert "coursewire_redis_up 1.0" in metrics.text


async def test_a_key_is_revoked_on_a_full_server_too(client, redis) -> None:
    key = (await client.post("/v1/api-keys", json={"name": "k", "scope": "read"})).json()
    headers = {"authorization": f"Bearer {key['token']}"}
    await redis.config_set("maxmemory", "1")
    try:
        assert (await client.get("/v1/subscriptions", headers=headers)).status_code == 200
        assert (await client.delete(f"/v1/api-keys/{key['id']}")).status_code == 204
        assert (await client.get("/v1/subscriptions", headers=headers)).status_code == 401
    finally:
        await redis.config_set("maxmemory", "0")


async def test_a_full_server_is_a_problem_that_says_so(client, redis) -> None:
    await redis.config_set("maxmemory", "1")
    try:
        answer = await client.post("/v1/subscriptions", json={"url": "https://r.example"})
    finally:
        await redis.config_set("maxmemory", "0")
    assert answer.status_code == 503
    assert "memory" in answer.json()["detail"]


@pytest.mark.parametrize("count", [10, 700])
async def test_courses_are_listed_in_pages_of_at_most_the_limit(client, redis, count) -> None:
    registered = await client.post(
        "/v1/integrations",
        json={"name": "a", "upstream_id": "w:1", "base_url": "https://a.example", "api_key": "k"},
    )
    integration = registered.json()
    packed = Fingerprint(
        deleted=False, raw=b"r" * 16, paths=bytes(95), remote_id="1", origin_id=None
    )
    names = {f"c{number}" for number in range(count)}
    await redis.hset(
        keys.catalogue(integration["id"], integration["epoch"]),
        mapping=dict.fromkeys(names, packed.pack()),
    )
    await redis.hset(
        keys.quarantine(integration["id"], integration["epoch"]),
        mapping={f"q{number}": "no id" for number in range(5)},
    )
    seen: list[str] = []
    cursor = ""
    while cursor is not None:
        path = f"/v1/integrations/{integration['id']}/courses?limit=3{cursor}"
        page = (await client.get(path)).json()
        assert len(page["items"]) <= 3
        seen += [one["course_id"] for one in page["items"]]
        cursor = page["next"] and f"&after={page['next']}"
    assert set(seen) == names | {f"q{number}" for number in range(5)}
    assert len(seen) == len(set(seen))


async def test_a_search_among_many_courses_costs_a_bounded_part_of_them(client, redis) -> None:
    registered = await client.post(
        "/v1/integrations",
        json={"name": "a", "upstream_id": "w:1", "base_url": "https://a.example", "api_key": "k"},
    )
    integration = registered.json()
    of = integration["id"], integration["epoch"]
    one = Fingerprint(deleted=False, raw=b"r" * 16, paths=bytes(95), remote_id="", origin_id=None)
    many = {
        f"c{number}": msgspec.structs.replace(
            one, remote_id=f"r{number}", deleted=number < 3
        ).pack()
        for number in range(4 * MAX_EXAMINED)
    }
    await redis.hset(keys.catalogue(*of), mapping=many)
    await redis.hset(keys.quarantine(*of), mapping={"c7": "no id"})

    async def search(query: str) -> tuple[set[str], int]:
        """What is found, and in how many pages."""
        found, pages, cursor = set(), 0, ""
        while cursor is not None:
            page = (await client.get(f"/v1/integrations/{of[0]}/courses?{query}{cursor}")).json()
            found |= {course["course_id"] for course in page["items"]}
            pages, cursor = pages + 1, page["next"] and f"&after={page['next']}"
        return found, pages

    for query, wanted in (("remote_id=r39999", {"c39999"}), ("state=deleted", {"c0", "c1", "c2"})):
        found, pages = await search(query)
        assert found == wanted
        assert 4 <= pages <= 5
    assert await search("state=quarantined") == ({"c7"}, 1)
