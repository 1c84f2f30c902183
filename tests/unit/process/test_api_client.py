from __future__ import annotations

import io
import json

import httpx
import pytest
from click.testing import CliRunner

from service.cli import coursewire
from service.commands import api_client as remote
from service.domain.errors import SettingsError
from service.settings import Settings

STATUS = {
    "status": "degraded",
    "reasons": ["polling has been paused since 2026-11-23T08:00:00.000Z"],
    "redis": {
        "up": True,
        "server": "valkey",
        "version": "9.1.0",
        "memory_used_bytes": 12_000_000,
        "memory_share": 0.12,
        "persistence": "aof",
    },
    "schedulers": [{"name": "one", "last_turn_at": "2026-11-23T08:00:01.000Z"}],
    "workers": [{"name": "w1", "state": "idle", "last_heartbeat_at": "2026-11-23T08:00:01.000Z"}],
    "queues": [{"name": "coursewire-poll", "queued": 1, "started": 2, "failed": 3}],
    "polls": {"due": 4, "claimed": 0, "leased": 0, "oldest_due_at": "2026-11-23T08:00:00.000Z"},
    "outboxes": {"due": 0, "claimed": 5, "leased": 5, "oldest_due_at": None},
    "lateness": {
        "window_seconds": 900,
        "receipts": 12,
        "receipt_p50_seconds": 0.41,
        "receipt_p99_seconds": 2.5,
        "oldest_pending_at": None,
        "oldest_poll_at": "2026-11-23T08:00:00.000Z",
        "oldest_full_poll_at": None,
    },
    "paused": {"polling": "2026-11-23T08:00:00.000Z", "delivery": None},
    "integrations": {"active": 7, "error": 1, "paused": 0},
    "totals": {"courses": 30, "pending": 2},
}
ATTEMPTS = [
    {"at": "2026-11-23T07:00:00.000Z", "outcome": "connect", "error": "refused", "excerpt": ""},
    {"at": "2026-11-23T08:00:00.000Z", "outcome": "status", "status": 500, "excerpt": "Oops"},
]
SUBSCRIPTIONS = [
    {"id": "sub_1", "description": "index\x1b[31m", "state": "parked", "disabled_reason": None},
    {"id": "sub_2", "description": None, "state": "active"},
]
PROBLEM = {"message": "wrong key", "since": "2026-11-23T06:00:00.000Z"}
INTEGRATIONS = [
    {"id": "int_1", "name": "Acme", "state": "error", "held": 0, "error": PROBLEM},
    {"id": "int_2", "name": "Bolt", "state": "review", "held": 7, "error": None},
]
DOWN = {"status": "down", "reasons": ["Redis does not answer"], "redis": {"up": False}}


@pytest.fixture
def api(monkeypatch):
    """The API as it answers, and what it was asked."""
    asked = []
    answers = {
        f"GET /v1/{path}": httpx.Response(200, json=document)
        for path, document in {
            "status": STATUS,
            "subscriptions": {"items": SUBSCRIPTIONS, "next": None},
            "deliveries": {"items": [{"attempts": ATTEMPTS}], "next": None},
            "integrations": {"items": INTEGRATIONS, "next": None},
        }.items()
    }

    monkeypatch.setenv("COURSEWIRE_ADMIN_TOKEN", "t" * 20)
    return asked, answers


@pytest.fixture
def run(api):
    asked, answers = api

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        found = answers[f"{request.method} {request.url.path}"]
        if isinstance(found, Exception):
            raise found
        return found

    def run(*arguments: str):
        return CliRunner().invoke(coursewire, arguments, obj=httpx.MockTransport(answer))

    return run


def test_the_status_is_a_table_and_its_exit_code_says_how_it_is(api, run):
    asked, _ = api
    result = run("status")
    assert result.exit_code == 1
    assert result.output.startswith("degraded\n")
    for text in ("valkey 9.1.0, 12 MB in use (12% of its limit)", "7 active, 1 error", "4 due"):
        assert text in result.output
    assert "polling paused since" in result.output
    assert (
        "12 received in the last 15 min, half within 0.41 s of detection, 99 % within 2.5 s; "
        "oldest last complete poll at 2026-11-23T08:00:00.000Z"
    ) in result.output
    for text in (
        "subscriptions 1 parked, 1 active",
        "attention     sub_1 index\N{REPLACEMENT CHARACTER}[31m: parked, 500: Oops, since ",
        "attention     int_1 Acme: error, wrong key, since 2026-11-23T06:00:00Z",
        "attention     int_2 Bolt: review, 7 changes held\n",
    ):
        assert text in result.output
    request = asked[0]
    assert (request.method, request.url) == ("GET", "http://127.0.0.1:8000/v1/status")
    assert asked[2].url.params["subscription_id"] == "sub_1"
    assert asked[3].url.params.get_list("state") == ["error", "review"]
    assert request.headers["authorization"] == "Bearer " + "t" * 20


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("degraded", 1), ("down", 2)])
def test_json_is_the_answer_itself(api, run, status, code):
    _, answers = api
    answers["GET /v1/status"] = httpx.Response(200, json={**STATUS, "status": status})
    result = run("status", "--json")
    assert result.exit_code == code
    assert json.loads(result.output)["status"] == status


def test_without_redis_the_reason_is_all_there_is_to_show():
    out = io.StringIO()
    assert remote.show_status(DOWN, out, as_json=False) == 2
    assert "Redis does not answer" in out.getvalue()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.ConnectError("refused"), "does not answer (refused)"),
        (
            httpx.Response(
                401, json={"title": "Unauthorized", "detail": "this token is not valid"}
            ),
            "token is not valid",
        ),
        (
            httpx.Response(502, text="<html>"),
            "answers 502: the server at this address is not Coursewire's",
        ),
    ],
)
def test_an_api_that_does_not_answer_as_it_should_is_down(api, run, answer, said):
    _, answers = api
    answers["GET /v1/status"] = answer
    result = run("status", "--url", "http://elsewhere:9/")
    assert result.exit_code == 2
    assert said in result.output


@pytest.mark.parametrize(
    ("arguments", "path", "body"),
    [
        (("pause", "polling"), "/v1/pause", {"what": "polling"}),
        (("pause",), "/v1/pause", {}),
        (("resume", "delivery"), "/v1/resume", {"what": "delivery"}),
    ],
)
def test_pause_and_resume_pass_on_what(api, run, arguments, path, body):
    asked, answers = api
    answers[f"POST {path}"] = httpx.Response(200, json={"polling": "now", "delivery": None})
    result = run(*arguments)
    assert (result.exit_code, result.output) == (
        0,
        "polling: paused since now\ndelivery: running\n",
    )
    assert json.loads(asked[0].content) == body


def test_only_polling_and_delivery_can_be_paused(run):
    assert run("pause", "everything").exit_code == 2


def test_a_token_is_needed(tmp_path):
    with pytest.raises(SettingsError, match="ADMIN_TOKEN"):
        remote.Remote(Settings(data_dir=tmp_path))


@pytest.mark.parametrize(
    ("host", "url"), [("0.0.0.0", "http://127.0.0.1:8000"), ("::", "http://[::1]:8000")]
)
def test_an_address_for_everybody_is_reached_on_this_machine(tmp_path, host, url):
    settings = Settings(host=host, admin_token="t" * 20, data_dir=tmp_path)
    assert remote.Remote(settings).url == url
