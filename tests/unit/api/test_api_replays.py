from __future__ import annotations

import msgspec
import pytest

from service.domain.access.grants import Grant
from service.domain.events.event import rfc3339
from service.domain.events.identifiers import BACKFILLED, event_id
from service.storage.delivery.outboxes import Queue
from service.storage.redis import keys

POSITIONS = ("1795424001123-0", "1795424002000-0", "1795424003000-0")


@pytest.fixture
async def events(services) -> list:
    for position in POSITIONS:
        fields = {"t": "course.created", "i": "int_a", "c": "c", "x": "x" * 12, "s": 5, "p": 0}
        await services.redis.xadd(keys.EVENTS, {**fields, "m": "{}", "b": "{}"}, id=position)
    return await services.events.get_many(POSITIONS)


@pytest.fixture
async def subscription(client) -> dict:
    return (await client.post("/v1/subscriptions", json={"url": "https://hooks.internal/a"})).json()


@pytest.fixture
def path(subscription) -> str:
    return f"/v1/subscriptions/{subscription['id']}/replays"


async def test_a_replay_is_accepted_listed_shown_and_cancelled(
    client, services, events, subscription, path, problem
) -> None:
    answer = await client.post(path, json={"which": "all"})
    assert answer.status_code == 202
    created = answer.json()
    replay_id = created["id"]
    assert answer.headers["location"] == f"{path}/{replay_id}"
    assert replay_id.startswith("rpl_")
    assert created.pop("created_at")
    assert created == {
        "id": replay_id,
        "subscription_id": subscription["id"],
        "which": "all",
        "since": None,
        "until": None,
        "event_types": None,
        "event_id": None,
        "state": "queued",
        "scanned": 0,
        "queued": 0,
        "delivered": 0,
        "dead": 0,
        "left_out": 0,
        "reached_at": None,
        "started_at": None,
        "finished_at": None,
        "error": None,
    }
    assert await services.redis.zscore(keys.due("outboxes"), subscription["id"]) is not None
    shown = (await client.get(f"{path}/{replay_id}")).json()
    assert (await client.get(path)).json() == {"items": [shown], "next": None}
    assert (await client.delete(f"{path}/{replay_id}")).status_code == 204
    cancelled = (await client.get(f"{path}/{replay_id}")).json()
    assert cancelled["state"] == "cancelled"
    assert cancelled["finished_at"]
    problem(await client.delete(f"{path}/{replay_id}"), "conflict", 409)


async def test_a_replay_is_of_the_time_and_the_types_that_were_asked_for(
    client, services, events, path
) -> None:
    sent = {
        "which": "all",
        "since": "2026-11-23T08:53:21.123Z",
        "until": "2026-11-23T08:53:23Z",
        "event_types": ["course.created"],
    }
    created = (await client.post(path, json=sent)).json()
    assert created["since"] == "2026-11-23T08:53:21.123Z"
    assert created["until"] == "2026-11-23T08:53:23.000Z"
    assert created["event_types"] == ["course.created"]
    replay, _ = await services.replays.get(created["subscription_id"], created["id"])
    found = await services.events.scan(replay.start, replay.end, 10)
    assert [event.position for event in found] == list(POSITIONS[:2])
    created = (await client.post(path, json={"which": "dead"})).json()
    replay, _ = await services.replays.get(created["subscription_id"], created["id"])
    assert replay.end == POSITIONS[-1]  # what happens from now on is no part of it


async def test_replays_are_paged(client, path) -> None:
    made = [(await client.post(path, json={"which": "all"})).json()["id"] for _ in range(3)]
    first = (await client.get(path, params={"limit": 2})).json()
    rest = (await client.get(path, params={"after": first["next"]})).json()
    assert {one["id"] for one in first["items"] + rest["items"]} == set(made)
    assert rest["next"] is None


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({}, "which"),
        ({"which": "event"}, "which"),
        ({"which": "everything"}, "which"),
        ({"which": "backfill", "since": "2026-11-23T08:53:21Z"}, "since"),
        ({"which": "backfill", "until": "2026-11-23T08:53:21Z"}, "until"),
        ({"which": "backfill", "event_types": ["course.updated"]}, "event_types"),
        ({"which": "all", "since": "yesterday"}, "since"),
        ({"which": "all", "since": "2999-01-01T00:00:00Z"}, "since"),
        ({"which": "all", "event_types": ["course.changed"]}, "event_types[0]"),
        (
            {
                "which": "all",
                "since": "2026-11-23T08:53:21Z",
                "until": "2026-11-23T08:53:21Z",
            },
            "until",
        ),
    ],
)
async def test_what_cannot_be_replayed_is_refused(client, refused, path, sent, field) -> None:
    refused(await client.post(path, json=sent), field)


async def test_events_that_are_no_longer_kept_are_not_left_out_silently(
    client, services, events, refused, path
) -> None:
    await services.redis.set(keys.EVENTS_TRIMMED, POSITIONS[0])
    await services.redis.xdel(keys.EVENTS, POSITIONS[0])
    sent = {"which": "all", "since": "2026-11-23T08:53:21.123Z"}
    errors = refused(await client.post(path, json=sent), "since")
    assert "2026-11-23T08:53:21.124Z" in errors["since"]["message"]
    sent["since"] = "2026-11-23T08:53:21.124Z"
    assert (await client.post(path, json=sent)).status_code == 202
    assert (await client.post(path, json={"which": "all"})).status_code == 202


async def test_what_is_missing_is_only_told_where_attempts_are_on_record(
    client, services, events, refused, path, subscription, monkeypatch
) -> None:
    await services.redis.hset(keys.subscription(subscription["id"]), "begins", 1795424001000)

    async def reach(_subscription_id):
        return 1795424002500

    monkeypatch.setattr(services.attempts, "reach", reach)
    for sent in ({"which": "missing"}, {"which": "missing", "since": "2026-11-23T08:53:22Z"}):
        errors = refused(await client.post(path, json=sent), "since")
        assert "2026-11-23T08:53:22.500Z" in errors["since"]["message"]
        assert "replay all" in errors["since"]["remedy"]
    sent = {"which": "missing", "since": "2026-11-23T08:53:22.500Z"}
    assert (await client.post(path, json=sent)).status_code == 202


async def test_what_is_missing_begins_with_the_subscription_unless_an_earlier_time_is_asked_for(
    client, services, events, subscription, path
) -> None:
    begins = await services.subscriptions.begins(subscription["id"])
    missing = (await client.post(path, json={"which": "missing"})).json()
    assert missing["since"] == rfc3339(begins)
    assert (await client.post(path, json={"which": "all"})).json()["since"] is None
    earlier = {"which": "missing", "since": "2026-11-23T08:53:22.000Z"}
    assert (await client.post(path, json=earlier)).json()["since"] == earlier["since"]
    # One that began in the past goes back as far.
    made = {"url": "https://hooks.internal/a", "from": "2026-11-23T08:53:22.500Z"}
    other = (await client.post("/v1/subscriptions", json=made)).json()["id"]
    answer = await client.post(f"/v1/subscriptions/{other}/replays", json={"which": "missing"})
    assert answer.json()["since"] == made["from"]
    made["from"] = "oldest"
    other = (await client.post("/v1/subscriptions", json=made)).json()["id"]
    answer = await client.post(f"/v1/subscriptions/{other}/replays", json={"which": "missing"})
    assert answer.json()["since"] is None


async def test_one_event_is_redelivered(client, services, events, subscription) -> None:
    sent = {"subscription_id": subscription["id"]}
    answer = await client.post(f"/v1/events/{events[1].id}/redeliver", json=sent)
    assert answer.status_code == 202, answer.text
    replay = answer.json()
    assert (replay["which"], replay["event_id"]) == ("event", events[1].id)
    assert (replay["state"], replay["scanned"], replay["queued"]) == ("running", 1, 1)
    assert (await client.get(answer.headers["location"])).json() == replay
    (entry,) = await services.outboxes.read(subscription["id"], "-", 5, Queue.REPLAYED)
    assert (entry.event_position, entry.replay) == (POSITIONS[1], replay["id"])


async def test_what_cannot_be_redelivered_says_why(
    client, services, events, subscription, problem, refused
) -> None:
    sent = {"subscription_id": subscription["id"]}
    path = f"/v1/events/{events[0].id}/redeliver"
    refused(await client.post(path, json={}), "subscription_id")
    problem(await client.post(path, json={"subscription_id": "sub_x"}), "not-found", 404)
    for unknown in ("evt_x", events[0].id[:-1] + "z"):
        answer = await client.post(f"/v1/events/{unknown}/redeliver", json=sent)
        problem(answer, "not-found", 404)
    await services.redis.set(keys.EVENTS_TRIMMED, POSITIONS[0])
    await services.redis.xdel(keys.EVENTS, POSITIONS[0])
    detail = problem(await client.post(path, json=sent), "event-expired", 410)["detail"]
    assert "2026-11-23T08:53:21.123Z" in detail


async def test_replays_of_what_is_unknown_are_not_found(client, path, problem) -> None:
    nothing = "/v1/subscriptions/sub_x/replays"
    problem(await client.post(nothing, json={"which": "all"}), "not-found", 404)
    problem(await client.get(nothing), "not-found", 404)
    for place in (f"{nothing}/rpl_x", f"{path}/rpl_x"):
        problem(await client.get(place), "not-found", 404)
        problem(await client.delete(place), "not-found", 404)


async def test_the_header_of_replays_is_reserved(client, refused) -> None:
    sent = {"url": "https://hooks.internal/a", "headers": {"Coursewire-Replay": "true"}}
    refused(await client.post("/v1/subscriptions", json=sent), "headers.Coursewire-Replay")


async def test_replays_are_counted_in_the_metrics(client, path) -> None:
    await client.post(path, json={"which": "all"})
    assert "coursewire_replays_unfinished 1.0" in (await client.get("/metrics")).text


async def test_a_subscriber_replays_to_its_own_subscriptions_what_it_may_see(
    client, services, events, open_key, subscription, problem
) -> None:
    sees, sees_not = await open_key(), await open_key()
    await services.api_keys.update(
        sees["id"],
        lambda key: msgspec.structs.replace(key, grant=Grant(integration_ids=("int_a",))),
    )
    for key, pending in ((sees, 3), (sees_not, 0)):
        sent = {"url": "https://hooks.internal/b", "from": "oldest"}
        own = (await client.post("/v1/subscriptions", json=sent, headers=key["headers"])).json()
        assert own["pending"] == pending
        path = f"/v1/events/{events[0].id}/redeliver"
        answer = await client.post(
            path, json={"subscription_id": own["id"]}, headers=key["headers"]
        )
        if pending:
            assert answer.status_code == 202
        else:
            problem(answer, "not-found", 404)
        answer = await client.post(
            path, json={"subscription_id": subscription["id"]}, headers=key["headers"]
        )
        problem(answer, "not-found", 404)
        path = f"/v1/subscriptions/{subscription['id']}/replays"
        answer = await client.post(path, json={"which": "all"}, headers=key["headers"])
        problem(answer, "not-found", 404)


async def test_a_backfill_is_accepted_and_one_of_a_subscription_at_a_time(
    client, path, problem
) -> None:
    sent = {"which": "backfill", "event_types": ["course.created", "course.updated"], "since": None}
    answer = await client.post(path, json=sent)
    assert answer.status_code == 202, answer.text
    created = answer.json()
    assert (created["which"], created["state"], created["left_out"]) == ("backfill", "queued", 0)
    assert created["id"] in problem(await client.post(path, json=sent), "conflict", 409)["detail"]
    assert (await client.post(path, json={"which": "all"})).status_code == 202
    await client.delete(answer.headers["location"])
    assert (await client.post(path, json=sent)).status_code == 202


async def test_how_far_a_backfill_has_come_is_shown(client, services, path) -> None:
    created = (await client.post(path, json={"which": "backfill"})).json()
    key = keys.replay(created["subscription_id"], created["id"])
    facts = {"state": "running", "position": '{"step":3}', "scanned": 250, "left_out": 2}
    await services.redis.hset(key, mapping=facts)
    shown = (await client.get(f"{path}/{created['id']}")).json()
    assert (shown["scanned"], shown["left_out"], shown["reached_at"]) == (250, 2, None)


async def test_a_subscription_that_takes_no_created_courses_is_not_backfilled(
    client, refused
) -> None:
    sent = {"url": "https://hooks.internal/a", "event_types": ["course.deleted"]}
    subscription = (await client.post("/v1/subscriptions", json=sent)).json()
    path = f"/v1/subscriptions/{subscription['id']}/replays"
    errors = refused(await client.post(path, json={"which": "backfill"}), "which")
    assert "course.created" in errors["which"]["message"]


async def test_an_event_of_a_backfill_is_in_no_log_and_that_is_said(
    client, subscription, problem
) -> None:
    identifier = event_id(f"1795424001123-{BACKFILLED}", "x" * 12)
    detail = problem(await client.get(f"/v1/events/{identifier}"), "not-found", 404)["detail"]
    assert "made by a backfill" in detail
    sent = {"subscription_id": subscription["id"]}
    answer = await client.post(f"/v1/events/{identifier}/redeliver", json=sent)
    assert "made by a backfill" in problem(answer, "not-found", 404)["detail"]
