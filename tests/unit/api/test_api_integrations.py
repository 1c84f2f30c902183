from __future__ import annotations

import asyncio
from collections import Counter

import msgspec
import pytest

from service.api.resources.integrations.upstream_check import code_of, remedy
from service.domain.courses.fingerprint import Fingerprint
from service.domain.errors import (
    UpstreamAuthError,
    UpstreamError,
    UpstreamNotFoundError,
    UpstreamUnavailableError,
)
from service.domain.polling.integration import PollRecord, Problem
from service.storage.polling.catalogue import Batch, Change, NewEvent, Progress
from service.storage.redis import keys
from service.storage.scheduling.leases import Lease

INLINE = {
    "name": "Workday",
    "upstream_id": "workday:1",
    "base_url": "https://api.kombo.dev/v1",
    "api_key": "key-1",
}


@pytest.fixture
async def integration(client) -> dict:
    answer = await client.post("/v1/integrations", json=INLINE)
    assert answer.status_code == 201, answer.text
    return answer.json()


@pytest.fixture
def path(integration) -> str:
    return f"/v1/integrations/{integration['id']}"


# --- registration ---------------------------------------------------------------------------


async def test_an_integration_is_registered_with_the_published_defaults(client) -> None:
    answer = await client.post("/v1/integrations", json=INLINE)
    created = answer.json()
    assert answer.headers["location"] == f"/v1/integrations/{created['id']}"
    changing = ("id", "credential_id", "created_at", "updated_at", "epoch", "next_poll_at")
    assert all(created.pop(name) for name in changing)
    assert created == {
        "name": "Workday",
        "upstream_id": "workday:1",
        "external_id": None,
        "labels": {},
        "delta_interval_seconds": 60,
        "full_interval_seconds": 21_600,
        "baseline": "silent",
        "ignore_paths": [],
        "track_remote_data": False,
        "guards": {
            "deleted_count": 10,
            "deleted_share": 0.15,
            "deleted_share_max": 0.5,
            "changed_count": 20,
            "changed_share": 0.5,
        },
        "held": 0,
        "clock_skew_seconds": None,
        "paused": False,
        "state": "pending",
        "course_count": 0,
        "quarantined": 0,
        "last_poll": None,
        "error": None,
        "notices": [],
    }
    assert "key-1" not in answer.text


async def test_inline_values_make_a_credential(client, services, integration) -> None:
    opened = await services.credentials.decrypt(integration["credential_id"])
    assert (opened.base_url, opened.api_key) == (INLINE["base_url"], INLINE["api_key"])


async def test_every_field_is_stored_as_sent(client) -> None:
    sent = {
        **{name: INLINE[name] for name in ("name", "upstream_id")},
        "credential_id": (
            await client.post(
                "/v1/credentials",
                json={"name": "c", "base_url": "https://a.example", "api_key": "k"},
            )
        ).json()["id"],
        "external_id": "tenant-42",
        "labels": {"region": "eu"},
        "delta_interval_seconds": 30,
        "full_interval_seconds": 600,
        "baseline": "emit",
        "ignore_paths": ["provider", "revisions.title"],
        "track_remote_data": True,
        "paused": True,
    }
    created = (await client.post("/v1/integrations", json=sent)).json()
    assert {name: created[name] for name in sent} == sent
    assert created["state"] == "paused"
    assert created["next_poll_at"] is None


async def test_every_wrong_field_is_named_at_once(client, refused) -> None:
    answer = await client.post(
        "/v1/integrations",
        json={
            "upstream_id": "has blanks",
            "credential_id": "cred_unknown",
            "external_id": 5,
            "labels": {"a": 1, "": "x"},
            "delta_interval_seconds": 0,
            "full_interval_seconds": "600",
            "baseline": "loud",
            "ignore_paths": ["provider", "revisions.titel", "provider"],
            "track_remote_data": "yes",
            "paused": None,
            "external": "x",
            "state": "active",
        },
    )
    errors = refused(
        answer,
        "name",
        "upstream_id",
        "credential_id",
        "external_id",
        "labels.a",
        "labels.",
        "delta_interval_seconds",
        "full_interval_seconds",
        "baseline",
        "ignore_paths[1]",
        "ignore_paths[2]",
        "track_remote_data",
        "paused",
        "external",
        "state",
    )
    assert errors["ignore_paths[1]"]["remedy"] == "did you mean revisions.title?"
    assert errors["external"]["remedy"] == "did you mean external_id?"


@pytest.mark.parametrize(
    ("values", "fields"),
    [
        ({}, ["credential_id"]),
        ({"base_url": "https://a.example"}, ["api_key"]),
        ({"api_key": "k"}, ["base_url"]),
        (
            {"credential_id": "cred_1", "base_url": "https://a.example", "api_key": "k"},
            ["base_url", "api_key", "credential_id"],
        ),
    ],
)
async def test_a_credential_is_named_or_brought_along(client, refused, values, fields) -> None:
    answer = await client.post(
        "/v1/integrations", json={"name": "a", "upstream_id": "w:1", **values}
    )
    refused(answer, *fields)


async def test_the_same_upstream_twice_is_a_conflict_that_names_the_existing_one(
    client, problem, services, integration
) -> None:
    answer = await client.post("/v1/integrations", json={**INLINE, "name": "again"})
    document = problem(answer, "integration-exists", 409)
    assert document["existing_id"] == integration["id"]
    assert f"PATCH /v1/integrations/{integration['id']}" in document["detail"]
    credentials, _ = await services.credentials.page(10)
    assert [one.id for one in credentials] == [integration["credential_id"]]


async def register(client, number: int, **values) -> dict:
    inline = {name: value for name, value in INLINE.items() if name not in ("base_url", "api_key")}
    if "credential_id" not in values:
        inline = INLINE
    answer = await client.post(
        "/v1/integrations", json={**inline, "upstream_id": f"w:{number}", **values}
    )
    assert answer.status_code == 201, answer.text
    return answer.json()


async def credential_ids(services) -> set[str]:
    found, _ = await services.credentials.page(100)
    assert set((await services.redis.hgetall(keys.CREDENTIALS_BY_VALUES)).values()) == {
        one.id.encode() for one in found
    }
    return {one.id for one in found}


async def test_inline_values_that_are_known_reuse_their_credential(
    client, services, integration
) -> None:
    again = await register(client, 2)
    assert again["credential_id"] == integration["credential_id"]
    for number, other in ((3, {"api_key": "key-2"}), (4, {"base_url": "https://us.kombo.dev/v1"})):
        another = await register(client, number, **other)
        assert another["credential_id"] != integration["credential_id"]
    assert len(await credential_ids(services)) == 3
    stored = await services.redis.hgetall(keys.CREDENTIALS_BY_VALUES)
    assert not any(b"key-" in name for name in stored)


async def test_inline_values_reuse_a_credential_made_by_itself_which_stays(
    client, services
) -> None:
    values = {name: INLINE[name] for name in ("name", "base_url", "api_key")}
    credential = (await client.post("/v1/credentials", json=values)).json()
    one = await register(client, 1)
    assert one["credential_id"] == credential["id"]
    await client.delete(f"/v1/integrations/{one['id']}")
    assert await credential_ids(services) == {credential["id"]}


async def test_a_credential_is_found_by_the_values_that_it_has_now(
    client, services, integration
) -> None:
    path = f"/v1/credentials/{integration['credential_id']}"
    assert (await client.patch(path, json={"api_key": "key-2"})).status_code == 200
    assert (await register(client, 2))["credential_id"] != integration["credential_id"]
    assert (await client.patch(path, json={"base_url": "https://us.kombo.dev/v1"})).is_success
    moved = {"api_key": "key-2", "base_url": "https://us.kombo.dev/v1"}
    assert (await register(client, 3, **moved))["credential_id"] == integration["credential_id"]
    assert len(await credential_ids(services)) == 2


async def test_a_credential_made_inline_goes_with_its_last_integration(
    client, services, integration, problem
) -> None:
    again = await register(client, 2)
    credential = f"/v1/credentials/{integration['credential_id']}"
    assert (await client.get(credential)).json()["inline"] is True
    await client.delete(f"/v1/integrations/{integration['id']}")
    assert (await client.get(credential)).status_code == 200
    other = await register(client, 3, api_key="key-2")
    moved = await client.patch(
        f"/v1/integrations/{again['id']}", json={"credential_id": other["credential_id"]}
    )
    assert moved.status_code == 200
    problem(await client.get(credential), "not-found", 404)
    assert await credential_ids(services) == {other["credential_id"]}
    assert (await register(client, 4))["credential_id"] != integration["credential_id"]


async def test_inline_registrations_at_once_share_one_credential(client, services) -> None:
    made = await asyncio.gather(*(register(client, number) for number in range(8)))
    assert len({one["credential_id"] for one in made}) == 1
    assert len(await credential_ids(services)) == 1
    (credential_id,) = {one["credential_id"] for one in made}
    assert await services.redis.hget(keys.credential(credential_id), "uses") == b"8"


async def test_a_registration_that_is_refused_leaves_no_credential(
    client, services, integration, problem
) -> None:
    answer = await client.post("/v1/integrations", json={**INLINE, "api_key": "key-2"})
    problem(answer, "integration-exists", 409)
    assert await credential_ids(services) == {integration["credential_id"]}


async def test_integrations_are_listed_with_where_they_stand(client, services, integration) -> None:
    second = (await client.post("/v1/integrations", json={**INLINE, "upstream_id": "w:2"})).json()
    page = (await client.get("/v1/integrations?limit=1")).json()
    rest = (await client.get(f"/v1/integrations?after={page['next']}")).json()
    assert {one["id"] for one in page["items"] + rest["items"]} == {
        integration["id"],
        second["id"],
    }
    assert rest["next"] is None


async def test_the_state_of_polling_is_shown(client, services, path, integration) -> None:
    problem = Problem(
        code="PLATFORM.AUTHENTICATION_INVALID",
        message="refused",
        since=1_795_424_001_123,
        attention=True,
        status=401,
    )
    poll = PollRecord(
        id="poll_1", kind="full", state="completed", started_at=1000, finished_at=2500, pages=3
    )
    await services.redis.hset(
        keys.integration(integration["id"]),
        mapping={
            "baselined": 1,
            "course_count": 12,
            "quarantined": 2,
            "problem": msgspec.json.encode(problem),
        },
    )
    await services.redis.hset(keys.polls(integration["id"]), "poll_1", msgspec.json.encode(poll))
    await services.redis.zadd(keys.poll_order(integration["id"]), {"poll_1": 1})
    await client.post(f"{path}/polls", json={"kind": "delta"})
    shown = (await client.get(path)).json()
    assert (shown["state"], shown["course_count"], shown["quarantined"]) == ("error", 12, 2)
    assert shown["error"] == {
        "code": "PLATFORM.AUTHENTICATION_INVALID",
        "message": "refused",
        "remedy": shown["error"]["remedy"],
        "since": "2026-11-23T08:53:21.123Z",
        "attention": True,
        "status": 401,
        "log_url": None,
    }
    assert "api_key" in shown["error"]["remedy"]
    assert (shown["last_poll"]["id"], shown["last_poll"]["duration_seconds"]) == ("poll_1", 1.5)


# --- editing and deleting -------------------------------------------------------------------


async def test_a_patch_changes_only_what_is_sent(client, path, integration) -> None:
    answer = await client.patch(path, json={"name": "renamed", "labels": {"a": "b"}})
    assert answer.status_code == 200
    changed = answer.json()
    assert changed.pop("updated_at") >= integration.pop("updated_at")
    assert changed == {**integration, "name": "renamed", "labels": {"a": "b"}}


async def test_null_clears_what_may_be_null(client, path) -> None:
    await client.patch(path, json={"external_id": "x"})
    assert (await client.patch(path, json={"external_id": None})).json()["external_id"] is None


async def test_a_patch_cannot_bring_a_credential_along(client, refused, path, integration) -> None:
    errors = refused(
        await client.patch(path, json={"base_url": "https://b.example", "api_key": "k"}),
        "base_url",
        "api_key",
    )
    for error in errors.values():
        assert f"PATCH /v1/credentials/{integration['credential_id']}" in error["remedy"]
    refused(await client.patch(path, json={"credential_id": "cred_none"}), "credential_id")


async def test_the_same_baseline_begins_no_epoch_and_another_one_does(
    client, path, integration
) -> None:
    changed = (await client.patch(path, json={"baseline": integration["baseline"]})).json()
    assert changed["epoch"] == integration["epoch"]
    answer = await client.patch(path, json={"baseline": "emit"})
    assert (answer.status_code, answer.json()["baseline"]) == (200, "emit")
    assert answer.json()["epoch"] != integration["epoch"]


async def test_another_upstream_id_begins_a_new_epoch(client, path, integration) -> None:
    changed = (await client.patch(path, json={"upstream_id": "workday:2"})).json()
    assert changed["epoch"] != integration["epoch"]
    assert changed["state"] == "pending"


async def test_an_edit_onto_a_registered_upstream_is_a_conflict(client, problem, path) -> None:
    await client.post("/v1/integrations", json={**INLINE, "upstream_id": "workday:2"})
    answer = await client.patch(path, json={"upstream_id": "workday:2"})
    problem(answer, "integration-exists", 409)


async def test_a_deleted_integration_is_gone(client, problem, path) -> None:
    assert (await client.delete(path)).status_code == 204
    problem(await client.get(path), "not-found", 404)
    problem(await client.delete(path), "not-found", 404)


# --- checks ---------------------------------------------------------------------------------


async def test_values_are_checked_without_being_saved(client, services, upstream) -> None:
    answer = await client.post("/v1/integrations/check", json=INLINE)
    assert answer.status_code == 200
    assert answer.json() == {"ok": True, "records_seen": 1}
    credential, upstream_id, query = upstream.asked[0]
    assert (credential.base_url, credential.api_key) == (INLINE["base_url"], INLINE["api_key"])
    assert (upstream_id, query.page_size) == ("workday:1", 1)
    assert await services.redis.keys() == []


async def test_a_failed_check_says_what_to_do(client, upstream) -> None:
    upstream.error = UpstreamAuthError(
        "the key is not valid", code="PLATFORM.AUTHENTICATION_INVALID", status=401
    )
    answer = await client.post(
        "/v1/integrations/check",
        json={name: INLINE[name] for name in ("upstream_id", "base_url", "api_key")},
    )
    assert answer.status_code == 200
    document = answer.json()
    assert "api_key" in document.pop("remedy")
    assert document == {
        "ok": False,
        "code": "PLATFORM.AUTHENTICATION_INVALID",
        "status": 401,
        "message": "the key is not valid",
    }


@pytest.mark.parametrize(
    ("code", "advice"), [(None, "ends in /v1"), ("PLATFORM.INTEGRATION_NOT_FOUND", "upstream_id")]
)
async def test_not_found_without_a_code_points_to_the_base_url(
    client, upstream, code, advice
) -> None:
    upstream.error = UpstreamNotFoundError("not there", code=code, status=404)
    answer = await client.post("/v1/integrations/check", json=INLINE)
    assert advice in answer.json()["remedy"]


@pytest.mark.parametrize("kind", UpstreamError.__subclasses__())
@pytest.mark.parametrize("status", [None, 302, 401, 404, 418, 429, 503, 999])
def test_every_failure_has_a_remedy(kind, status) -> None:
    assert remedy(code_of(kind()), status)
    assert remedy("NEW.CODE", status)


async def test_a_check_names_wrong_values(client, refused) -> None:
    refused(
        await client.post("/v1/integrations/check", json={"base_url": "http://127.0.0.1"}),
        "upstream_id",
        "base_url",
        "api_key",
    )


async def test_the_stored_values_are_checked(client, upstream, path) -> None:
    upstream.error = UpstreamUnavailableError("no connection")
    answer = await client.post(f"{path}/check")
    assert answer.status_code == 200
    assert answer.json()["code"] == "UpstreamUnavailable"
    credential, upstream_id, _ = upstream.asked[0]
    assert (credential.api_key, upstream_id) == ("key-1", "workday:1")


async def test_an_unknown_integration_is_not_checked(client, problem) -> None:
    problem(await client.post("/v1/integrations/int_none/check"), "not-found", 404)


# --- polls ----------------------------------------------------------------------------------


async def test_a_poll_asked_for_is_accepted_and_listed(client, path) -> None:
    answer = await client.post(f"{path}/polls", json={"kind": "full"})
    assert answer.status_code == 202
    poll = answer.json()
    assert (poll["kind"], poll["state"]) == ("full", "queued")
    assert (await client.get(answer.headers["location"])).json() == poll
    assert (await client.get(f"{path}/polls")).json() == {"items": [poll], "next": None}


@pytest.mark.parametrize("body", [{}, {"json": {}}])
async def test_a_poll_is_a_delta_unless_it_says_otherwise(client, path, body) -> None:
    answer = await client.post(f"{path}/polls", **body)
    assert answer.status_code == 202
    assert answer.json()["kind"] == "delta"


async def test_a_poll_needs_a_known_kind(client, refused, path) -> None:
    refused(await client.post(f"{path}/polls", json={"kind": "sweep", "kin": 1}), "kind", "kin")


async def test_a_paused_integration_is_not_polled(client, problem, path) -> None:
    await client.patch(path, json={"paused": True})
    problem(await client.post(f"{path}/polls", json={"kind": "delta"}), "conflict", 409)


async def test_unknown_polls_are_not_found(client, problem, path) -> None:
    problem(await client.get(f"{path}/polls/poll_none"), "not-found", 404)
    problem(await client.get("/v1/integrations/int_none/polls"), "not-found", 404)


# --- courses --------------------------------------------------------------------------------


async def commit_courses(services, integration_id: str) -> None:
    """A live course with an event, one without, and one that does not decode."""
    _, state = await services.integrations.get(integration_id)
    lease = Lease("polls", integration_id, "token", 60_000)
    await services.redis.set(lease.key, "token")

    def fingerprint(name: str) -> Fingerprint:
        return Fingerprint(
            deleted=False, raw=b"r" * 16, paths=bytes(95), remote_id=name, origin_id=None
        )

    await services.catalogue.commit(
        lease,
        epoch=state.epoch,
        poll_id="poll_1",
        subscriptions_version=0,
        progress=Progress(b"", b"{}"),
        batch=Batch(
            changes=[
                Change(
                    course_id="c1",
                    fingerprint=fingerprint("1"),
                    live=1,
                    event=NewEvent(type="course.created", facts=b"{}", outboxes=(), order_key="c1"),
                ),
                Change(course_id="c2", fingerprint=fingerprint("2"), live=1),
                Change(course_id="c3", problem="no id"),
            ]
        ),
        increments=Counter(),
    )


async def test_courses_are_listed_with_what_is_kept_of_them(
    client, services, path, integration
) -> None:
    await commit_courses(services, integration["id"])
    page = (await client.get(f"{path}/courses")).json()
    courses = {one["course_id"]: one for one in page["items"]}
    assert page["next"] is None
    assert {name: one["state"] for name, one in courses.items()} == {
        "c1": "live",
        "c2": "live",
        "c3": "quarantined",
    }
    assert courses["c1"]["last_event_id"].startswith("evt_")
    assert courses["c2"] == {
        "course_id": "c2",
        "remote_id": "2",
        "origin_id": None,
        "state": "live",
        "reason": None,
        "sequence": None,
        "last_event_id": None,
    }
    assert courses["c3"]["reason"] == "no id"
    assert (await client.get(f"{path}/courses/c1")).json() == courses["c1"]


async def test_pages_of_courses_hold_no_more_than_asked_for(
    client, services, path, integration
) -> None:
    await commit_courses(services, integration["id"])
    seen, cursor = [], ""
    while cursor is not None:
        page = (await client.get(f"{path}/courses?limit=1{cursor}")).json()
        assert len(page["items"]) <= 1
        seen += [one["course_id"] for one in page["items"]]
        cursor = page["next"] and f"&after={page['next']}"
    assert sorted(seen) == ["c1", "c2", "c3"]


async def test_unknown_courses_are_not_found(client, problem, refused, path) -> None:
    problem(await client.get(f"{path}/courses/none"), "not-found", 404)
    problem(await client.get("/v1/integrations/int_none/courses"), "not-found", 404)
    problem(await client.get("/v1/integrations/int_none/courses/c1"), "not-found", 404)
    refused(await client.get(f"{path}/courses?after=x&limit=many"), "after", "limit")
