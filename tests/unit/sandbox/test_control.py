"""The sandbox over HTTP: its control API and its faults."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import pytest
from jsonschema import Draft202012Validator, FormatChecker
from litestar.testing import AsyncTestClient

from service.sandbox.server import SandboxConfig, create_sandbox

SCHEMA = json.loads(Path(__file__).with_name("sandbox_schema.json").read_text(encoding="utf-8"))
DEMO = "/control/integrations/sandbox:demo"
HEADERS = {"authorization": "Bearer sandbox-key", "x-integration-id": "sandbox:demo"}
NOW = 1_795_424_000_000


def validate(kind, document):
    Draft202012Validator(
        {"$ref": f"#/$defs/{kind}", "$defs": SCHEMA["$defs"]}, format_checker=FormatChecker()
    ).validate(document)


@pytest.fixture
async def client():
    app = create_sandbox(SandboxConfig(courses=30, quiet=True), clock=lambda: NOW)
    async with AsyncTestClient(app) as client:
        yield client


async def courses(client, **parameters):
    return await client.get("/v1/lms/courses", params=parameters, headers=HEADERS)


async def ok(client, **parameters):
    response = await courses(client, **parameters)
    assert response.status_code == 200
    document = response.json()
    validate("positive", document)
    return document["data"]


async def change(client, *requests):
    response = await client.post(f"{DEMO}/changes", json=list(requests))
    assert response.status_code == 200, response.text
    return response.json()


async def fault(client, **what):
    response = await client.post("/control/faults", json=what)
    assert response.status_code == 201, response.text
    return response.json()


async def test_an_answer_fits_the_schema_and_carries_date_and_budget(client):
    response = await courses(client, page_size=7)
    validate("positive", response.json())
    assert response.headers["content-type"].startswith("application/json")
    assert parsedate_to_datetime(response.headers["date"]).timestamp() == NOW // 1000
    assert response.headers["ratelimit-remaining"] == "59999"


async def test_a_refusal_fits_the_schema(client):
    response = await client.get("/v1/lms/courses")
    validate("error", response.json())
    assert response.status_code == 401


# --- control ------------------------------------------------------------------------------


async def test_integrations_are_made_and_listed(client):
    wanted = {"upstream_id": "workday:HWUT1", "courses": 12, "seed": 5}
    made = await client.post("/control/integrations", json=wanted)
    assert made.status_code == 201
    assert made.json() == wanted | {"live": 12, "changes": 0}
    listed = (await client.get("/control/integrations")).json()
    assert [entry["upstream_id"] for entry in listed] == ["sandbox:demo", "workday:HWUT1"]
    headers = HEADERS | {"x-integration-id": "workday:HWUT1"}
    data = (await client.get("/v1/lms/courses", headers=headers)).json()["data"]
    assert len(data["results"]) == 12
    assert (await client.post("/control/integrations", json=wanted)).status_code == 409


async def test_an_integration_that_does_not_support_a_filter_finds_nothing_unless_told(client):
    await client.post(
        "/control/integrations",
        json={"upstream_id": "m:1", "courses": 3, "unsupported_filters": ["remote_ids"]},
    )
    headers = HEADERS | {"x-integration-id": "m:1"}
    found = [
        len(
            (await client.get(f"/v1/lms/courses?{query}", headers=headers)).json()["data"][
                "results"
            ]
        )
        for query in ("", "remote_ids=x", "remote_ids=x&ignore_unsupported_filters=true")
    ]
    assert found == [3, 0, 3]


async def test_an_integration_may_serve_null_in_place_of_an_empty_list(client):
    await client.post(
        "/control/integrations", json={"upstream_id": "m:1", "courses": 20, "null_lists": True}
    )
    headers = HEADERS | {"x-integration-id": "m:1"}
    records = (await client.get("/v1/lms/courses", headers=headers)).json()["data"]["results"]
    fields = [record["integration_fields"] for record in records]
    assert None in fields
    assert [] not in fields


async def test_courses_are_listed_with_their_states(client):
    done = await change(client, {"op": "delete"}, {"op": "vanish"}, {"op": "create"})
    listed = (await client.get(f"{DEMO}/courses")).json()
    states = {entry["id"]: entry["state"] for entry in listed}
    assert [states[entry["course_id"]] for entry in done] == ["deleted", "vanished", "live"]
    assert (await client.get(f"{DEMO}/courses", params={"limit": 2})).json() == listed[:2]
    encoded = DEMO.replace(":", "%3A")
    assert (await client.get(f"{encoded}/courses", params={"limit": 2})).json() == listed[:2]


async def test_a_single_record_is_read_as_it_is_served(client):
    served = (await ok(client))["results"][4]
    assert (await client.get(f"{DEMO}/courses/{served['id']}")).json() == served
    await change(client, {"op": "vanish", "course_id": served["id"]})
    assert (await client.get(f"{DEMO}/courses/{served['id']}")).status_code == 404


async def test_changes_are_answered_and_logged(client):
    done = await change(
        client,
        {"op": "edit", "count": 3, "path": "revisions.title"},
        {"op": "delete", "count": 2},
    )
    assert [entry["n"] for entry in done] == [1, 2, 3, 4, 5]
    assert {tuple(entry["paths"]) for entry in done} == {("revisions.title",), ()}
    assert (await client.get(f"{DEMO}/log")).json() == done
    assert (await client.get(f"{DEMO}/log", params={"after": 3})).json() == done[3:]
    assert len((await ok(client))["results"]) == 28


async def test_a_field_is_switched_off_and_on_for_the_whole_integration(client):
    before = (await ok(client))["results"]
    off = await change(client, {"op": "field_off", "path": "revisions.title"})
    titles = [
        revision["title"]
        for record in (await ok(client))["results"]
        for revision in record["revisions"]
    ]
    assert set(titles) == {None}
    assert len(off) == len(before)
    assert (await client.get(f"{DEMO}/log")).json() == off
    await change(client, {"op": "field_on", "path": "revisions.title"})
    after = (await ok(client))["results"]
    assert [record["revisions"][0]["title"] for record in after] == [
        record["revisions"][0]["title"] for record in before
    ]


async def test_a_model_is_switched_off_and_on(client):
    assert len(await change(client, {"op": "delete", "all": True})) == 30
    assert (await ok(client))["results"] == []
    assert len((await ok(client, include_deleted="true"))["results"]) == 30
    assert len(await change(client, {"op": "restore", "all": True})) == 30
    assert await change(client, {"op": "restore", "all": True}) == []
    assert len((await ok(client))["results"]) == 30


async def test_a_change_may_carry_a_time_of_its_own(client):
    time = "2026-11-23T08:00:00.000Z"
    (done,) = await change(client, {"op": "edit", "path": "origin_id", "updated_at": time})
    record = (await client.get(f"{DEMO}/courses/{done['course_id']}")).json()
    assert record["changed_at"] == time < done["at"]
    data = await ok(client, updated_after="2026-11-23T07:59:59.999Z")
    assert data["results"] == [record]


async def test_a_change_that_cannot_be_made_says_what_was_done_before(client):
    response = await client.post(f"{DEMO}/changes", json=[{"op": "edit"}, {"op": "restore"}])
    assert response.status_code == 409
    assert response.json()["extra"]["applied"] == (await client.get(f"{DEMO}/log")).json()
    assert "restore" in response.json()["detail"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (f"{DEMO}/changes", [{"op": "explode"}]),
        (f"{DEMO}/changes", [{"op": "edit", "path": "nothing"}]),
        (f"{DEMO}/changes", [{"op": "edit", "counts": 3}]),
        (f"{DEMO}/changes", [{"op": "edit", "updated_at": "2026-11-23T08:00:00Z"}]),
        (f"{DEMO}/changes", [{"op": "field_off", "path": "remote_id"}]),
        (f"{DEMO}/changes", [{"op": "delete", "all": True, "count": 2}]),
        ("/control/integrations", {"upstream_id": ""}),
        ("/control/faults", {"kind": "unheard-of"}),
        ("/control/faults", {"kind": "delay"}),
        ("/control/churn", {"per_second": -1}),
        ("/control/clock", {"skew_seconds": 1e12}),
        ("/control/rate-limit", {"per_minute": -1}),
    ],
)
async def test_what_the_control_api_does_not_understand_is_refused(client, path, body):
    assert (await client.post(path, json=body)).status_code == 400


@pytest.mark.parametrize("path", ["courses", "log", "courses/x"])
async def test_an_unknown_integration_is_not_found(client, path):
    assert (await client.get(f"/control/integrations/a:b/{path}")).status_code == 404


async def test_what_was_served_is_listed(client):
    cursor = (await ok(client, page_size=20))["next"]
    await ok(client, page_size=20, cursor=cursor)
    await courses(client, ids="a,b,c", include_deleted="perhaps")
    served = (await client.get("/control/served")).json()
    assert [
        (entry["status"], entry["records"], entry["more"], entry["ids"]) for entry in served
    ] == [
        (200, 20, True, None),
        (200, 10, False, None),
        (400, 0, False, 3),
    ]
    assert served[1]["parameters"] == {"page_size": "20", "cursor": cursor}
    assert served[2]["code"] == "PLATFORM.INPUT_INVALID"
    assert (await client.get("/control/served", params={"after": 2})).json() == served[2:]


async def test_the_access_log_gets_a_line_per_request(tmp_path):
    path = tmp_path / "access.jsonl"
    app = create_sandbox(SandboxConfig(access_log=str(path), quiet=True))
    async with AsyncTestClient(app) as client:
        await courses(client)
        await courses(client, page_size=0)
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert lines == (await client.get("/control/served")).json()


async def test_churn_changes_courses_until_it_is_stopped(client):
    assert (await client.get("/control/churn")).json() == {"per_second": 0.0}
    await client.post("/control/churn", json={"per_second": 2000})
    log = []
    while len(log) < 300:
        log = (await client.get(f"{DEMO}/log")).json()
    stopped = await client.post("/control/churn", json={"per_second": 0})
    assert stopped.json() == {"per_second": 0.0}
    assert {"edit", "provider", "create", "delete", "restore"} <= {entry["op"] for entry in log}
    (summary,) = (await client.get("/control/integrations")).json()
    assert summary["live"] >= summary["courses"] / 2 - 1


async def test_a_skewed_clock_dates_answers_and_later_changes_but_no_logs(client):
    assert (await client.get("/control/clock")).json() == {"skew_seconds": 0.0}
    (before,) = await change(client, {"op": "edit"})
    for skew in (90.5, -3600.0):
        answer = await client.post("/control/clock", json={"skew_seconds": skew})
        assert answer.json() == (await client.get("/control/clock")).json()
        assert answer.json() == {"skew_seconds": skew}
        dated = parsedate_to_datetime((await courses(client)).headers["date"])
        assert dated.timestamp() == int(NOW / 1000 + skew)
        (done,) = await change(client, {"op": "edit", "path": "origin_id"})
        record = (await client.get(f"{DEMO}/courses/{done['course_id']}")).json()
        logged = datetime.fromisoformat(done["at"])
        assert datetime.fromisoformat(record["changed_at"]) == logged + timedelta(seconds=skew)
        assert logged > datetime.fromisoformat(before["at"])
        (*_, served) = (await client.get("/control/served")).json()
        assert datetime.fromisoformat(served["at"]).timestamp() == NOW / 1000


async def test_the_rate_limit_is_set_while_requests_come_and_begins_a_fresh_window(client):
    assert (await client.get("/control/rate-limit")).json() == {"per_minute": 60_000}

    async def allowed(per_minute):
        answer = await client.post("/control/rate-limit", json={"per_minute": per_minute})
        assert answer.json() == (await client.get("/control/rate-limit")).json()
        answers = [await courses(client) for _ in range(4)]
        assert {answer.headers["ratelimit-limit"] for answer in answers} == {str(per_minute)}
        assert {answer.headers["ratelimit-reset"] for answer in answers} == {"60"}
        assert answers[0].headers["ratelimit-remaining"] == str(max(0, per_minute - 1))
        return [answer.status_code for answer in answers]

    assert await allowed(2) == [200, 200, 429, 429]
    assert await allowed(2) == [200, 200, 429, 429]
    await client.post("/control/clock", json={"skew_seconds": 7200})
    assert (await courses(client)).status_code == 429
    assert await allowed(0) == [429] * 4
    assert await allowed(1000) == [200] * 4


# --- faults -------------------------------------------------------------------------------


async def test_an_error_strikes_as_often_as_asked(client):
    added = await fault(client, kind="error", code="PLATFORM.TASK_TIMED_OUT", times=2)
    answers = [await courses(client) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [504, 504, 200]
    validate("error", answers[0].json())
    assert answers[0].json()["error"]["code"] == "PLATFORM.TASK_TIMED_OUT"
    assert added["remaining"] == 2
    assert (await client.get("/control/faults")).json() == []


async def test_an_error_may_lack_a_code_and_name_a_status_and_a_wait(client):
    await fault(client, kind="error", code=None, status=429, retry_after=17)
    answer = await courses(client)
    validate("error", answer.json())
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "17")
    assert answer.json()["error"]["code"] is None


async def test_a_probability_strikes_some_requests(client):
    await fault(client, kind="error", probability=0.5)
    statuses = [(await courses(client)).status_code for _ in range(60)]
    assert 10 < statuses.count(500) < 50
    (active,) = (await client.get("/control/faults")).json()
    assert active["struck"] == statuses.count(500)


@pytest.mark.parametrize(
    ("on", "statuses"),
    [
        ("any", [500, 500, 500, 500]),
        ("walk", [500, 500, 200, 200]),
        ("first", [500, 200, 200, 200]),
        ("later", [200, 500, 200, 200]),
        ("ids", [200, 200, 500, 500]),
    ],
)
async def test_a_fault_strikes_the_requests_it_is_for(client, on, statuses):
    data = await ok(client, page_size=5)
    some = {"ids": ",".join(record["id"] for record in data["results"]), "page_size": 2}
    asked = [
        {"page_size": 5},
        {"page_size": 5, "cursor": data["next"]},
        some,
        some | {"cursor": (await ok(client, **some))["next"]},
    ]
    await fault(client, kind="error", on=on)
    assert [(await courses(client, **each)).status_code for each in asked] == statuses


async def test_a_fault_of_another_integration_strikes_nobody_here(client):
    await fault(client, kind="error", upstream_id="workday:other")
    assert (await courses(client)).status_code == 200


async def test_a_load_balancer_answers_in_html_without_a_budget(client):
    await fault(client, kind="html", status=503)
    answer = await courses(client)
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "text/html"
    assert "<html>" in answer.text
    assert "ratelimit-limit" not in answer.headers


async def test_of_two_faults_that_replace_the_answer_the_first_wins(client):
    await fault(client, kind="html", times=1)
    await fault(client, kind="error", code="PLATFORM.UNKNOWN_ERROR")
    assert [(await courses(client)).status_code for _ in range(2)] == [502, 500]


async def test_truncated_json_looks_complete_to_http(client):
    whole = (await courses(client)).content
    await fault(client, kind="truncate", after=0.5)
    answer = await courses(client)
    assert answer.status_code == 200
    assert answer.content == whole[: len(whole) // 2]


async def test_an_empty_answer_has_no_records_and_no_next_page(client):
    await fault(client, kind="empty", times=1)
    assert await ok(client, page_size=5) == {"next": None, "results": []}


async def test_a_poll_that_ends_early_claims_to_be_complete(client):
    await fault(client, kind="end_early", on="first")
    data = await ok(client, page_size=5)
    assert (data["next"], len(data["results"])) == (None, 5)


async def test_courses_missing_from_polls_may_still_be_found_by_id(client):
    missing = (await ok(client))["results"][3]["id"]
    await fault(client, kind="vanish", course_ids=[missing], on="walk")
    polled = [record["id"] for record in (await ok(client, page_size=29))["results"]]
    assert len(polled) == 29
    assert missing not in polled
    assert [record["id"] for record in (await ok(client, ids=missing))["results"]] == [missing]


async def test_a_share_of_the_courses_is_missing_always_the_same(client):
    await fault(client, kind="vanish", share=0.5)
    first, second = await ok(client), await ok(client)
    assert first == second
    assert 5 < len(first["results"]) < 25


@pytest.mark.parametrize(
    "what",
    [
        {"kind": "shift", "by": -1},
        {"kind": "repeat_cursor"},
        {"kind": "endless"},
        {"kind": "wrong_types", "where": "page"},
    ],
)
async def test_a_fault_of_paging_strikes_as_others_do(client, what):
    before = await ok(client, page_size=7)
    await fault(client, **what, on="later", times=1)
    for struck in (True, False):
        answer = await courses(client, page_size=7, cursor=before["next"])
        (served,) = (await client.get("/control/served")).json()[-1:]
        assert served["faults"] == ([what["kind"]] if struck else [])
        assert answer.status_code == 200


async def test_faults_are_listed_and_removed(client):
    first = await fault(client, kind="empty")
    second = await fault(client, kind="delay", seconds=0)
    assert (await client.get("/control/faults")).json() == [first, second]
    assert (await client.delete(f"/control/faults/{first['id']}")).status_code == 204
    assert (await client.get("/control/faults")).json() == [second]
    assert (await client.delete(f"/control/faults/{first['id']}")).status_code == 404
    assert (await client.delete("/control/faults")).status_code == 204
    assert (await client.get("/control/faults")).json() == []


async def test_a_delayed_answer_holds_up_no_other():
    app = create_sandbox(SandboxConfig(courses=3, quiet=True))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://sandbox") as client:
        await fault(client, kind="delay", seconds=30, times=1)
        late = asyncio.create_task(courses(client))
        while not (await client.get("/control/served")).json():  # noqa: ASYNC110 the log is the event
            await asyncio.sleep(0)
        assert (await courses(client)).status_code == 200
        assert not late.done()
        late.cancel()
        with pytest.raises(asyncio.CancelledError):
            await late
