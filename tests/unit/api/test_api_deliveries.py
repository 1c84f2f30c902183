from __future__ import annotations

import pytest

from service.domain.events.identifiers import event_id
from service.storage.redis import keys
from tests.stored_deliveries import FIRST_MS, SUFFIX, store
from tests.unit.api.test_api_events import append
from tests.unit.api.test_api_keys import SUBSCRIPTION

OLDER, NEWER = f"{FIRST_MS}-1", f"{FIRST_MS + 5000}-2"


async def subscribe(client, **options) -> str:
    answer = await client.post("/v1/subscriptions", json=SUBSCRIPTION, **options)
    return answer.json()["id"]


async def listed(client, query: str = "", **options) -> list[tuple[str, str, str]]:
    answer = await client.get(f"/v1/deliveries?{query}", **options)
    assert answer.status_code == 200, answer.text
    return [
        (one["subscription_id"], one["event_id"], one["state"]) for one in answer.json()["items"]
    ]


async def test_a_delivery_says_what_it_is_of_and_what_came_of_it(client, services) -> None:
    subscription = await subscribe(client)
    event = await append(services, OLDER, "c1", "course.updated")
    await store(services.redis, OLDER, subscription, "retrying")
    (item,) = (await client.get("/v1/deliveries")).json()["items"]
    (attempt,) = item.pop("attempts")
    due = item.pop("next_attempt_at")
    assert item == {
        "subscription_id": subscription,
        "event_id": event.id,
        "event_type": "course.updated",
        "integration_id": "int_a",
        "course_id": "c1",
        "state": "retrying",
        "reason": None,
    }
    assert (attempt["outcome"], attempt["status"]) == ("status", 500)
    assert due > "2026"


async def test_who_received_an_event_and_who_is_failing_are_one_request_each(
    client, services
) -> None:
    first, second, third = sorted([await subscribe(client) for _ in range(3)])
    for position in (OLDER, NEWER):
        await append(services, position, f"c{position}")
    older, newer = (event_id(position, SUFFIX) for position in (OLDER, NEWER))
    await store(services.redis, OLDER, first, "delivered")
    await store(services.redis, OLDER, second, "retrying")
    await store(services.redis, OLDER, third, "dead")
    await store(services.redis, NEWER, first, "pending")
    await store(services.redis, NEWER, third, "retrying")
    everything = [
        (third, newer, "retrying"),
        (first, newer, "pending"),
        (third, older, "dead"),
        (second, older, "retrying"),
        (first, older, "delivered"),
    ]
    assert await listed(client) == everything
    assert await listed(client, "order=asc") == everything[::-1]
    assert await listed(client, f"event_id={older}") == everything[2:]
    assert await listed(client, "state=retrying") == [everything[0], everything[3]]
    assert await listed(client, "state=retrying,dead&state=pending") == everything[:4]
    assert await listed(client, f"subscription_id={second}") == [everything[3]]
    assert await listed(client, "outcome=delivered") == [everything[4]]
    assert await listed(client, "status=500&state=dead") == [everything[2]]
    assert await listed(client, f"course_id=c{NEWER}&integration_id=int_a") == everything[:2]
    assert await listed(client, "event_type=course.deleted") == []
    moment = "2026-11-23T08:53:22Z"
    assert await listed(client, f"since={moment}") == everything[:2]
    assert await listed(client, f"until={moment}") == everything[2:]
    assert await listed(client, f"event_id={event_id(OLDER, SUFFIX[::-1])}") == []


async def test_pages_follow_each_other_while_deliveries_change(client, services) -> None:
    subscriptions = [await subscribe(client) for _ in range(3)]
    for position in (OLDER, NEWER):
        await append(services, position, "c1")
        for subscription in subscriptions:
            await store(services.redis, position, subscription, "delivered")
    found, query = [], "limit=2"
    for _ in range(3):
        page = (await client.get(f"/v1/deliveries?{query}")).json()
        found += [(one["event_id"], one["subscription_id"]) for one in page["items"]]
        query = f"limit=2&after={page['next']}"
        later = f"{FIRST_MS + 9000 + len(found)}-0"
        await append(services, later, "c2")
        await store(services.redis, later, subscriptions[0], "pending")
    assert page["next"] is None
    assert len(found) == 6
    assert found == sorted(found, reverse=True)


async def test_a_subscriber_sees_its_own_deliveries_and_no_event_beyond_its_grant(
    client, services, open_key
) -> None:
    one, other = await open_key(), await open_key()
    theirs = await subscribe(client)
    own = await subscribe(client, headers=one["headers"])
    # What looks like the owner in another field is none.
    await client.patch(f"/v1/subscriptions/{theirs}", json={"labels": {"owner": one["id"]}})
    await append(services, OLDER, "c1", tenant="a")
    event = event_id(OLDER, SUFFIX)
    for subscription in (theirs, own):
        await store(services.redis, OLDER, subscription, "delivered")
    assert len(await listed(client)) == 2
    for query in ("", f"event_id={event}", "state=delivered", "course_id=c1"):
        assert await listed(client, query, headers=one["headers"]) == [(own, event, "delivered")]
        assert await listed(client, query, headers=other["headers"]) == []

    await client.patch(f"/v1/api-keys/{one['id']}", json={"labels": {"tenant": "b"}})
    (item,) = (await client.get("/v1/deliveries", headers=one["headers"])).json()["items"]
    assert (item["event_id"], item["state"]) == (event, "delivered")
    assert (item["event_type"], item["integration_id"], item["course_id"]) == (None, None, None)
    assert await listed(client, "course_id=c1", headers=one["headers"]) == []


async def test_a_page_that_finds_nothing_in_a_part_leads_on(client, services, monkeypatch) -> None:
    monkeypatch.setattr("service.storage.delivery.deliveries.MAX_EXAMINED", 2)
    subscription = await subscribe(client)
    for number in range(5):
        position = f"{FIRST_MS + number}-0"
        await append(services, position, "wanted" if number == 0 else "c1")
        await store(services.redis, position, subscription, "delivered")
    pages, query = [], ""
    while query is not None:
        page = (await client.get(f"/v1/deliveries?course_id=wanted&limit=1{query}")).json()
        pages.append(len(page["items"]))
        query = page["next"] and f"&after={page['next']}"
    assert sum(pages) == 1
    assert pages[0] == 0


async def test_wrong_queries_of_deliveries_are_named(client, refused, problem) -> None:
    refused(
        await client.get(
            "/v1/deliveries?subscription_id=1&integration_id=1&event_id=1&event_type=course.gone"
            "&state=lost&outcome=fine&status=99&since=now&until=then&order=up&after=evt_x&x=1"
        ),
        *("subscription_id", "integration_id", "event_id", "event_type[0]", "state[0]"),
        *("outcome[0]", "status", "since", "until", "order", "after", "x"),
    )
    moment = "2026-11-23T09:30:00Z"
    refused(await client.get(f"/v1/deliveries?since={moment}&until={moment}"), "until")
    problem(await client.get("/v1/deliveries?subscription_id=sub_none"), "not-found", 404)


async def test_an_event_that_is_gone_is_listed_by_its_attempts(client, services) -> None:
    subscription = await subscribe(client)
    await append(services, OLDER, "c1")
    await store(services.redis, OLDER, subscription, "dead")
    await services.redis.xtrim(keys.EVENTS, maxlen=0, approximate=False)
    (item,) = (await client.get("/v1/deliveries")).json()["items"]
    assert (item["event_id"], item["event_type"]) == (event_id(OLDER, SUFFIX), None)
    assert (item["state"], item["reason"]) == ("dead", "why")


@pytest.mark.parametrize("time", ["0151-10-22", "1969-12-31T23:59:59Z", "1970-01-01", "9999-12-31"])
@pytest.mark.parametrize("bound", ["since", "until"])
@pytest.mark.parametrize("path", ["deliveries", "events", "history"])
async def test_lists_accept_any_time_as_a_bound(client, services, path, bound, time) -> None:
    subscription = await subscribe(client)
    await append(services, OLDER, "c1")
    await store(services.redis, OLDER, subscription, "delivered")
    course = "" if path == "history" else "&course_id=c1"
    answer = await client.get(f"/v1/{path}?{bound}={time}{course}")
    assert answer.status_code in (200, 400, 422), answer.text
    if path != "history":
        everything = (bound == "since") != (time == "9999-12-31")
        assert len(answer.json()["items"]) == everything
