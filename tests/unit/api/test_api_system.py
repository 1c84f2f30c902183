from __future__ import annotations

import hashlib
import json
import re
import time

import msgspec
import pytest
from jsonschema import Draft202012Validator
from litestar.testing import AsyncTestClient
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError

from service.api.http.problem_types import CATALOGUE
from service.api.schema.reference_page import ASSETS
from service.app import create_app
from service.domain.delivery.event_types import EVENT_TYPES
from service.domain.delivery.subscription import Rendering
from service.domain.errors import SettingsError
from service.domain.events.event import CONTENT_TYPES, CourseFacts, StoredEvent, render
from service.settings import Settings
from service.storage.redis import keys
from tests.programs import JAVASCRIPT


def broken(error: Exception):
    async def fail(*_arguments, **_options):
        raise error

    return fail


def answering(value: object):
    async def answer(*_arguments, **_options):
        return value

    return answer


# --- authorization --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    ["Bearer", "Bearer ", "Bearer wrong", "Basic YTpi", "Bearer ümlaut".encode(), "admin-token"],
)
async def test_other_tokens_are_refused(anonymous, problem, header) -> None:
    answer = await anonymous.get("/v1/status", headers={"authorization": header})
    problem(answer, "unauthorized", 401)


async def test_the_metrics_token_opens_the_metrics_alone(anonymous, problem, settings) -> None:
    headers = {"authorization": f"Bearer {settings.metrics_token}"}
    assert (await anonymous.get("/metrics", headers=headers)).status_code == 200
    problem(await anonymous.get("/v1/status", headers=headers), "forbidden", 403)


async def test_without_an_admin_token_there_is_no_api() -> None:
    with pytest.raises(SettingsError, match="COURSEWIRE_ADMIN_TOKEN"):
        create_app(Settings(encryption_keys=(b"k" * 32,)))


# --- requests that cannot be read -----------------------------------------------------------


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"a": 1} x', b'{"name": "\xff"}', b'{"name": "\\ud800"}', b"[" * 100_000]
)
async def test_a_body_that_is_not_json_is_a_problem(client, problem, body) -> None:
    answer = await client.post(
        "/v1/credentials", content=body, headers={"content-type": "application/json"}
    )
    problem(answer, "malformed", 400)


@pytest.mark.parametrize("body", [b"[]", b"null", b'"text"', b"1"])
async def test_a_body_that_is_not_an_object_is_a_problem(client, problem, body) -> None:
    answer = await client.post(
        "/v1/credentials", content=body, headers={"content-type": "application/json"}
    )
    assert "object" in problem(answer, "malformed", 400)["detail"]


async def test_another_content_type_is_a_problem(client, problem) -> None:
    for headers in ({"content-type": "text/plain"}, {}):
        answer = await client.post("/v1/credentials", content=b"{}", headers=headers)
        problem(answer, "unsupported-media-type", 415)


async def test_absurd_requests_are_answered_in_bounded_space(client, problem) -> None:
    many = {f"{number}{'x' * 500}": 1 for number in range(1_500)}
    answer = await client.post("/v1/credentials", json=many)
    problem(answer, "validation", 422)
    assert len(answer.content) < 100_000
    huge = b'{"url": "https://r.example", "max_concurrency": %s}' % (b"9" * 10_000)
    answer = await client.post(
        "/v1/subscriptions", content=huge, headers={"content-type": "application/json"}
    )
    assert answer.status_code in (400, 422)
    problem(await client.get("/v1/events?after=%ff%00&course_id=%ed%a0%80"), "validation", 422)
    problem(await client.get("/v1/integrations/%ff%00"), "not-found", 404)


async def test_a_charset_does_no_harm(client) -> None:
    answer = await client.post(
        "/v1/credentials",
        content=b"{}",
        headers={"content-type": "application/json; charset=utf-8"},
    )
    assert answer.status_code == 422


async def test_a_body_over_one_mebibyte_is_a_problem(client, problem) -> None:
    answer = await client.post("/v1/credentials", json={"name": "a" * 1_048_576})
    problem(answer, "too-large", 413)


async def test_the_root_says_where_to_read_on(anonymous) -> None:
    answer = await anonymous.get("/")
    assert (answer.status_code, answer.json()["documentation"]) == (200, "/schema")


async def test_unknown_paths_and_methods_are_problems(client, problem) -> None:
    document = problem(await client.get("/v1/integration"), "not-found", 404)
    assert document["detail"] == "no path /v1/integration; see /schema"
    answer = await client.put("/v1/credentials")
    problem(answer, "method-not-allowed", 405)
    assert {"GET", "POST"} <= set(answer.headers["allow"].split(", "))


# --- failures of our own --------------------------------------------------------------------


async def test_redis_away_is_a_problem_that_says_when_to_try_again(
    client, problem, services, monkeypatch
) -> None:
    monkeypatch.setattr(services.redis, "hget", broken(RedisConnectionError("at 10.1.2.3")))
    answer = await client.get("/v1/credentials/cred_x")
    problem(answer, "storage-unavailable", 503)
    assert answer.headers["retry-after"] == "5"
    assert "10.1.2.3" not in answer.text


async def test_redis_full_is_a_problem_of_its_own(client, problem, services, monkeypatch) -> None:
    monkeypatch.setattr(services.redis, "hget", broken(OutOfMemoryError("OOM")))
    answer = await client.get("/v1/credentials/cred_x")
    assert "memory" in problem(answer, "storage-unavailable", 503)["detail"]


async def test_a_defect_is_not_shown(client, problem, services, monkeypatch) -> None:
    monkeypatch.setattr(services.redis, "hget", broken(ValueError("inner detail")))
    answer = await client.get("/v1/credentials/cred_x")
    problem(answer, "internal", 500)
    assert "inner detail" not in answer.text


async def test_a_secret_that_does_not_open_is_told(client, problem, services) -> None:
    created = (await client.post("/v1/subscriptions", json={"url": "https://r.example"})).json()
    await services.redis.hset(keys.subscription(created["id"]), "secrets", b"1spoiled")
    answer = await client.get(f"/v1/subscriptions/{created['id']}/secret")
    problem(answer, "secret-unreadable", 500)


def test_problem_types_are_distinct() -> None:
    assert len({problem.name for problem in CATALOGUE}) == len(CATALOGUE)


# --- health, metrics, status ----------------------------------------------------------------


async def test_probes_need_no_token(anonymous) -> None:
    assert (await anonymous.get("/healthz")).json() == {"status": "ok"}
    assert (await anonymous.get("/readyz")).json() == {"status": "ok"}


async def test_a_process_lives_without_redis_but_is_not_ready(
    anonymous, problem, services, monkeypatch
) -> None:
    monkeypatch.setattr(services.redis, "ping", broken(RedisConnectionError()))
    assert (await anonymous.get("/healthz")).status_code == 200
    problem(await anonymous.get("/readyz"), "storage-unavailable", 503)
    monkeypatch.setattr(services.redis, "ping", broken(TimeoutError()))
    problem(await anonymous.get("/readyz"), "storage-unavailable", 503)


async def test_metrics_are_in_the_exposition_format(client) -> None:
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert answer.headers["content-type"].count("charset") == 1
    assert "coursewire_redis_up 1.0" in answer.text


async def test_requests_are_counted_by_route_and_never_by_path(client) -> None:
    await client.get("/v1/credentials/cred_nobody")
    await client.get("/nowhere/at/all")
    text = (await client.get("/metrics")).text
    route = '{method="GET",route="/v1/credentials/{credential_id}"'
    assert f'coursewire_api_requests_total{route},status="404"}}' in text
    assert f"coursewire_api_request_duration_seconds_count{route}}}" in text
    assert "cred_nobody" not in text
    assert "/nowhere" not in text
    assert "_created" not in text
    assert "process_resident_memory_bytes" in text


async def test_requests_that_wait_have_no_duration(client) -> None:
    def timed(text: str) -> list[str]:
        name = 'coursewire_api_request_duration_seconds_count{method="GET",route="/v1/events"}'
        return [line for line in text.splitlines() if line.startswith(name)]

    before = timed((await client.get("/metrics")).text)
    await client.get("/v1/events?wait=0")
    assert timed((await client.get("/metrics")).text) == before


async def test_openmetrics_are_given_on_request(client) -> None:
    answer = await client.get("/metrics", headers={"accept": "application/openmetrics-text"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


async def test_metrics_answer_without_redis_and_say_so(client, services, monkeypatch) -> None:
    monkeypatch.setattr(services.redis, "info", broken(RedisConnectionError()))
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert "coursewire_redis_up 0.0" in answer.text
    assert "coursewire_build_info{" in answer.text


async def test_the_status_of_an_idle_system_names_what_is_missing(client) -> None:
    status = (await client.get("/v1/status")).json()
    assert status["status"] == "degraded"
    assert status["reasons"] == ["no scheduler is running", "no worker is running"]
    assert status["redis"]["up"] is True
    assert (status["redis"]["server"], status["redis"]["version"]) == ("valkey", "9.1.0")
    assert status["redis"]["memory_limit_bytes"] is None
    assert status["totals"]["integrations"] == 0
    assert status["polls"] == {"due": 0, "claimed": 0, "leased": 0, "oldest_due_at": None}


async def test_the_status_of_a_working_system_is_ok(client, services) -> None:
    redis, now = services.redis, time.time_ns() // 1_000_000
    await redis.zadd(keys.SCHEDULERS, {"one": now})
    await redis.sadd("rq:workers", "rq:worker:w1")
    await redis.hset(
        "rq:worker:w1",
        mapping={
            "state": "idle",
            "queues": "coursewire-poll,coursewire-deliver",
            "hostname": "host",
            "pid": "7",
            "last_heartbeat": "2026-11-23T08:53:21.123456Z",
        },
    )
    await redis.sadd("rq:queues", "rq:queue:coursewire-poll")
    await redis.rpush("rq:queue:coursewire-poll", "job")
    await redis.zadd("rq:failed:coursewire-poll", {"job": 1})
    await redis.zadd(keys.due("polls"), {"int_a": now - 5, "int_b": now + 60_000})
    await redis.zadd(keys.claimed("outboxes"), {"sub_a": now, "sub_b": now})
    await redis.set(keys.lease("outboxes", "sub_a"), "token")
    await redis.hset(keys.TOTALS, mapping={"courses": 3, "pending": 2, "outbox:failing": 1})
    status = (await client.get("/v1/status")).json()
    assert (status["status"], status["reasons"]) == ("ok", [])
    assert [one["name"] for one in status["schedulers"]] == ["one"]
    assert status["workers"] == [
        {
            "name": "w1",
            "state": "idle",
            "queues": ["coursewire-poll", "coursewire-deliver"],
            "host": "host",
            "pid": 7,
            "last_heartbeat_at": "2026-11-23T08:53:21.123Z",
        }
    ]
    assert status["queues"] == [{"name": "coursewire-poll", "queued": 1, "started": 0, "failed": 1}]
    assert (status["polls"]["due"], status["polls"]["oldest_due_at"][-1]) == (1, "Z")
    assert (status["outboxes"]["claimed"], status["outboxes"]["leased"]) == (2, 1)
    assert (status["totals"]["courses"], status["totals"]["pending"]) == (3, 2)
    assert status["subscriptions"] == {
        **dict.fromkeys(("active", "parked", "paused", "disabled"), 0),
        "failing": 1,
    }


async def test_overdue_work_degrades_the_status(client, services) -> None:
    now = time.time_ns() // 1_000_000
    await services.redis.zadd(keys.due("outboxes"), {"sub_a": now - 120_000})
    await services.redis.zadd(keys.SCHEDULERS, {"one": now - 20_000})
    reasons = (await client.get("/v1/status")).json()["reasons"]
    assert any(reason.startswith("an outbox has been due since") for reason in reasons)
    assert any("no scheduler has looked for work since" in reason for reason in reasons)


async def test_without_redis_the_status_is_down(client, services, monkeypatch) -> None:
    monkeypatch.setattr(services.redis, "info", broken(RedisConnectionError()))
    answer = await client.get("/v1/status")
    assert answer.status_code == 200
    assert answer.json()["status"] == "down"
    assert answer.json()["redis"]["up"] is False


async def test_pausing_is_shown_with_since_when_until_it_is_resumed(client) -> None:
    answer = await client.post("/v1/pause", json={"what": "polling"})
    assert answer.status_code == 200
    since = answer.json()["polling"]
    assert since.endswith("Z")
    assert answer.json()["delivery"] is None
    status = (await client.get("/v1/status")).json()
    assert status["paused"] == {"polling": since, "delivery": None}
    assert f"polling has been paused since {since}" in status["reasons"]
    assert (await client.post("/v1/resume", json={"what": "polling"})).json()["polling"] is None
    assert (await client.get("/v1/status")).json()["paused"]["polling"] is None


async def test_pausing_without_a_word_pauses_both(client) -> None:
    assert all((await client.post("/v1/pause")).json().values())
    assert not any((await client.post("/v1/resume", json={})).json().values())


async def test_what_cannot_be_paused_is_refused(client, refused) -> None:
    refused(await client.post("/v1/pause", json={"what": "everything"}), "what")
    refused(await client.post("/v1/resume", json={"which": "polling"}), "which")


async def test_integrations_that_need_attention_are_counted_and_degrade_nothing(
    client, services
) -> None:
    before = (await client.get("/v1/status")).json()["reasons"]
    await services.redis.hset(keys.TOTALS, mapping={"state:error": 2, "state:active": 5})
    status = (await client.get("/v1/status")).json()
    assert status["integrations"] == {
        "active": 5,
        "pending": 0,
        "paused": 0,
        "error": 2,
        "review": 0,
    }
    assert status["reasons"] == before


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"maxmemory_policy": "allkeys-lru"}, "evicts by allkeys-lru"),
        ({"aof_last_write_status": "err"}, "cannot write its append-only file"),
        ({"rdb_last_bgsave_status": "err"}, "cannot write its snapshot"),
        ({"used_memory": 90, "maxmemory": 100}, "uses 90% of its memory limit"),
    ],
)
async def test_a_server_that_is_not_well_degrades_the_status(
    client, services, monkeypatch, said, reason
) -> None:
    info = await services.redis.info() | said
    monkeypatch.setattr(services.redis, "info", answering(info))
    status = (await client.get("/v1/status")).json()
    assert status["status"] == "degraded"
    assert any(reason in one for one in status["reasons"]), status["reasons"]


# --- documentation --------------------------------------------------------------------------


def answers(document, operation):
    """What an operation is documented to answer with, by status."""
    shared = document["components"]["responses"]
    return {
        status: shared[response["$ref"].rpartition("/")[2]] if "$ref" in response else response
        for status, response in operation["responses"].items()
    }


async def test_the_openapi_document_is_sound(anonymous) -> None:
    answer = await anonymous.get("/schema/openapi.json")
    document = answer.json()
    assert document["openapi"].startswith("3.1")
    components = document["components"]["schemas"]
    for reference in re.findall(r'"#/components/schemas/([^"]+)"', answer.text):
        assert reference in components
    for schema in components.values():
        Draft202012Validator.check_schema(schema)
    operations = [
        (f"{method} {path}", operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]
    assert set(document["webhooks"]) == {*EVENT_TYPES, "coursewire.test"}
    for item in document["webhooks"].values():
        for content in item["post"]["requestBody"]["content"].values():
            Draft202012Validator.check_schema(content["schema"])
    for name, operation in operations:
        assert operation["summary"], name
        assert operation["description"], name
        assert operation["tags"], name
        for status, response in answers(document, operation).items():
            if int(status) >= 400:
                assert list(response["content"]) == ["application/problem+json"], name
        for parameter in operation.get("parameters", ()):
            Draft202012Validator.check_schema(parameter["schema"])
        if name.startswith(("post", "patch")) and "requestBody" in operation:
            body = operation["requestBody"]["content"]["application/json"]["schema"]
            body = components[body["$ref"].rpartition("/")[2]]
            Draft202012Validator.check_schema(body)
            assert body["additionalProperties"] is False, name


async def test_the_documented_defaults_are_those_in_force(client) -> None:
    document = (await client.get("/schema/openapi.json")).json()
    values = {
        "/v1/subscriptions": {"url": "https://r.example"},
        "/v1/integrations": {
            "name": "a",
            "upstream_id": "w:1",
            "base_url": "https://a.example",
            "api_key": "k",
        },
    }
    for path, minimal in values.items():
        content = document["paths"][path]["post"]["requestBody"]["content"]
        name = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
        fields = document["components"]["schemas"][name]["properties"]
        created = (await client.post(path, json=minimal)).json()
        for name, field in fields.items():
            if "default" in field and name != "from":
                assert created[name] == field["default"], name
        assert set(fields) - {"secret", "base_url", "api_key", "from"} <= set(created)


async def test_every_field_and_answer_is_described(client) -> None:
    document = (await client.get("/schema/openapi.json")).json()
    for name, schema in document["components"]["schemas"].items():
        for field, one in schema.get("properties", {}).items():
            assert one.get("description"), f"{name}.{field}"
    for name, item in document["webhooks"].items():
        for content in item["post"]["requestBody"]["content"].values():
            properties = content["schema"]["properties"]
            for field, one in {**properties["data"]["properties"], **properties}.items():
                assert field == "data" or one.get("description"), f"{name}.{field}"
    for path, item in document["paths"].items():
        for operation in item.values():
            for response in answers(document, operation).values():
                assert "follows" not in response["description"], path


@pytest.mark.parametrize("rendering", Rendering)
@pytest.mark.parametrize("change", [{}, {"course": None}, {"type": "coursewire.test"}])
async def test_bodies_are_as_documented_for_their_content_type(client, rendering, change) -> None:
    facts = CourseFacts(
        integration_id="int_a",
        upstream_id="workday:1",
        external_id=None,
        labels={},
        course_id="c1",
        remote_id=None,
        origin_id=None,
        changed=("provider",),
        reason=None,
        evidence=None,
        initial=False,
        detected_by="full",
    )
    course = StoredEvent(
        id="evt_1",
        position="1795424001123-0",
        type="course.updated",
        integration_id="int_a",
        course_id="c1",
        sequence=1,
        previous_sequence=None,
        facts=msgspec.json.encode(facts),
        course=b'{"id":"c1"}',
    )
    if "type" in change:
        change = {**change, "course_id": "", "facts": b'{"subscription_id":"sub_a"}'}
    event = msgspec.structs.replace(course, **change)
    webhook = (await client.get("/schema/openapi.json")).json()["webhooks"][event.type]
    content = webhook["post"]["requestBody"]["content"][CONTENT_TYPES[rendering.format]]
    body = json.loads(render(event, rendering))
    Draft202012Validator(
        {**content["schema"], "additionalProperties": False},
        format_checker=Draft202012Validator.FORMAT_CHECKER,
    ).validate(body)


async def test_only_the_conflicts_that_an_operation_gives_are_listed(client) -> None:
    document = (await client.get("/schema/openapi.json")).json()
    deletion = document["paths"]["/v1/credentials/{credential_id}"]["delete"]
    conflict = answers(document, deletion)["409"]
    assert conflict["description"] == "The credential is in use by integrations"


async def test_the_page_and_its_files_come_from_here_and_run_nothing_else(anonymous) -> None:
    page = await anonymous.get("/schema")
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script[^>]*>[^<]|<style|//", page.text)
    assets = re.findall(r'(?:src|href)="(/schema/assets/[^"]+)"', page.text)
    assert len(assets) == 3
    for asset in assets:
        answer = await anonymous.get(asset)
        assert answer.headers["content-type"].startswith("text/")
        assert answer.headers["cache-control"] == "max-age=3600, private"


async def test_vendored_files_are_those_that_were_published(javascript_packages) -> None:
    manifest = json.loads((ASSETS / "manifest.json").read_text())
    lock = json.loads((JAVASCRIPT / "package-lock.json").read_text())
    locked = lock["packages"][f"node_modules/{manifest['package']}"]
    for name in ("version", "license", "integrity"):
        assert manifest[name] == locked[name]
    ours = {"manifest.json", "start.js"}
    assert {path.name for path in ASSETS.iterdir()} == ours | set(manifest["sha256"])
    for name, digest in manifest["sha256"].items():
        published = javascript_packages / manifest["package"] / name
        for path in (ASSETS / name, published):
            assert hashlib.sha256(path.read_bytes()).hexdigest() == digest, path


async def test_the_documentation_can_be_closed(settings, problem) -> None:
    closed = json.loads(json.dumps({"public_docs": False}))
    values = {field: getattr(settings, field) for field in settings.__struct_fields__}
    async with AsyncTestClient(
        create_app(Settings(**{**values, **closed}), open_services=_nothing)
    ) as client:
        problem(await client.get("/schema"), "unauthorized", 401)
        problem(await client.get("/schema/openapi.json"), "unauthorized", 401)
        problem(await client.get("/schema/assets/start.js"), "unauthorized", 401)
        client.headers["authorization"] = f"Bearer {settings.admin_token}"
        assert (await client.get("/schema")).status_code == 200


class _nothing:  # noqa: N801 - stands in for a function
    def __init__(self, _settings):
        pass

    async def __aenter__(self):
        return None

    async def __aexit__(self, *_details):
        return None


# --- what the router refuses ----------------------------------------------------------------


async def test_what_the_router_refuses_has_an_id_and_is_logged_too(anonymous, problem) -> None:
    for answer in (await anonymous.get("/nowhere"), await anonymous.put("/v1/credentials")):
        assert answer.headers["x-request-id"].startswith("req_")
    answer = await anonymous.get("/schema/nothing")
    assert problem(answer, "not-found", 404)["detail"] == "no path /schema/nothing; see /schema"


async def test_the_methods_of_a_path_are_all_told(anonymous, problem) -> None:
    answer = await anonymous.options("/v1/credentials/cred_a")
    assert (answer.status_code, answer.content) == (204, b"")
    methods = {"GET", "HEAD", "PATCH", "DELETE", "OPTIONS"}
    assert set(answer.headers["allow"].split(", ")) == methods
    problem(await anonymous.options("/nowhere"), "not-found", 404)


async def test_urls_and_headers_without_end_are_refused(client, problem) -> None:
    problem(await client.get(f"/v1/events?course_id={'x' * 9_000}"), "uri-too-long", 414)
    problem(await client.get(f"/{'x' * 9_000}"), "uri-too-long", 414)
    answer = await client.get("/v1/status", headers={"x-many": "x" * 17_000})
    problem(answer, "headers-too-large", 431)
    headers = {f"x-{number}": "x" * 100 for number in range(200)}
    problem(await client.get("/healthz", headers=headers), "headers-too-large", 431)
