"""What commands ask, and how they show what is answered."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from click.testing import CliRunner

from service.cli import coursewire
from service.commands.api_client import RemoteError
from service.commands.resources.declarations import RESOURCES
from service.commands.resources.operations import operations

ONE = {
    "id": "sub_1",
    "description": "search \x1b[31mindex",
    "url": "https://example.com/",
    "state": "parked",
    "pending": 3,
    "dead": 0,
    "oldest_pending_at": "2026-11-23T09:30:00.000Z",
    "labels": {"region": "eu"},
    "headers": {},
}


def page(*items, following=None, **more):
    return {"items": list(items), "next": following, **more}


def test_a_list_is_a_table_on_a_terminal_and_the_answer_elsewhere(api, run):
    api.says(page(ONE))
    shown = run("subscriptions", terminal=True).output.splitlines()
    assert shown[0].split() == [
        *("id", "description", "url", "state", "pending", "dead"),
        *("oldest", "pending", "at"),
    ]
    assert shown[1].split() == [
        *("sub_1", "search", "\N{REPLACEMENT CHARACTER}[31mindex", "https://example.com/"),
        *("parked", "3", "0", "2026-11-23T09:30:00Z"),
    ]
    for arguments, terminal in ((("list",), False), (("list", "--json"), True)):
        found = run("subscriptions", *arguments, terminal=terminal)
        assert json.loads(found.output) == page(ONE)
        assert "\x1b" not in found.output


def test_an_object_is_shown_field_by_field_with_its_etag(api, run):
    nested = {**ONE, "guards": {"deleted_share": 0.15}, "polls": [{"n": 1}, {"n": 2}]}
    api.says(nested, headers={"etag": '"v1"'})
    shown = run("subscriptions", "show", "sub_1", terminal=True).output
    lines = [line.split() for line in shown.splitlines()]
    for expected in (["labels"], ["region", "eu"], ["headers", "-"], ["deleted_share", "0.15"]):
        assert expected in lines
    assert ["etag", '"v1"'] in lines
    assert "\x1b" not in shown
    assert json.loads(run("subscriptions", "show", "sub_1").output) == {**nested, "etag": '"v1"'}


def test_one_field_is_printed_bare(api, run):
    api.says(page(ONE, {**ONE, "id": "sub_2"}))
    assert run("subscriptions", "list", "--get", "id").output == "sub_1\nsub_2\n"
    api.says(ONE)
    found = run("subscriptions", "show", "sub_1", "--get", "labels.region", terminal=True)
    assert found.output == "eu\n"
    assert run("subscriptions", "show", "sub_1", "--get", "pending").output == "3\n"


def test_an_unknown_field_is_refused_with_the_known_ones(api, run):
    api.says(page({**ONE, "error": None, "labels": {}}, ONE))
    assert run("subscriptions", "list", "--get", "error.code").output == "null\nnull\n"
    assert run("subscriptions", "list", "--get", "labels.region").output == "null\neu\n"
    unknown = run("subscriptions", "list", "--get", "labels.regoin")
    assert (unknown.exit_code, unknown.stdout) == (2, "")
    api.says(ONE)
    unknown = run("subscriptions", "create", "--url", "u", "--get", "secrt")
    assert unknown.exit_code == 2
    assert "no field secrt. The fields are: id, description," in unknown.stderr
    assert "labels, labels.region" in unknown.stderr
    assert '"id": "sub_1"' in unknown.stderr  # it is created, and may have shown a secret


def test_an_event_has_an_id_and_a_list_has_positions(api, run):
    for wanted in ("id", "event_id", "data.event_id"):
        api.says(page(event(1), event(2)))
        assert run("events", "list", "--get", wanted).output == "evt_1\nevt_2\n"
    api.says(page(DELIVERY))
    assert run("deliveries", "list", "--get", "attempts.0.excerpt").output == "Sorry,\nbroken\n"
    assert run("deliveries", "list", "--get", "attempts.7.excerpt").output == "null\n"
    assert "attempts.0" in run("deliveries", "list", "--get", "attempts.excerpt").stderr


DELIVERY = {
    "event_id": "evt_1",
    "subscription_id": "sub_1",
    "state": "retrying",
    "attempts": [
        {
            "number": 1,
            "outcome": "status",
            "status": 500,
            "error": "status 500",
            "excerpt": "Sorry,\nbroken",
        }
    ],
}


def test_what_a_receiver_answered_is_shown_with_what_to_do(api, run):
    api.says(page(DELIVERY))
    listed = run("deliveries", terminal=True)
    assert "500: Sorry, broken" in listed.stdout
    assert listed.stderr == "To retry now: coursewire subscriptions retry sub_1\n"
    assert run("deliveries").stderr == ""
    shown = run("deliveries", "show", "evt_1", "--subscription-id", "sub_1", terminal=True).stdout
    assert dict(api.asked[-1].url.params) == {
        "event_id": "evt_1",
        "subscription_id": "sub_1",
        "limit": "100",
    }
    assert "excerpt  Sorry,\N{REPLACEMENT CHARACTER}broken" in shown


def test_after_a_test_of_a_parked_subscription_its_retry_is_named(api, run):
    api.says({"outcome": "delivered"}, ONE)
    tested = run("subscriptions", "test", "sub_1", terminal=True)
    assert "coursewire subscriptions retry sub_1" in tested.stderr


def test_a_preview_is_shown_on_a_terminal(api, run):
    upstream = {"state": "live", "record": {"title": "Fire safety"}}
    held = {"course_id": "c1", "kind": "deleted", "upstream": upstream}
    api.says(page(held, state="open", preview={"ok": True}))
    shown = run("reviews", "show", "int_1", "--preview", "1", terminal=True).output
    assert [line.split() for line in shown.splitlines()][-4:] == [
        ["c1"],
        ["state", "live"],
        ["record"],
        ["title", "Fire", "safety"],
    ]


def test_ids_may_be_other_names_that_are_unique(api, run):
    api.says(page(ONE, {**ONE, "id": "sub_2", "description": "index two"}), ONE)
    run("subscriptions", "show", "index two")
    listed, shown = api.asked
    assert (listed.url.params["name"], shown.url.path) == ("index two", "/v1/subscriptions/sub_2")
    api.says(page(ONE, ONE))
    for name, said in (("nowhere", "nothing's description"), (ONE["description"], "sub_1, sub_1")):
        refused = run("subscriptions", "show", name)
        assert refused.exit_code == 1
        assert said in str(refused.exception)


def test_times_may_be_relative(api, run):
    api.says(page())
    run("deliveries", "list", "--since", "2h", "--until", "2026-11-23T09:30:00Z")
    sent = api.asked[-1].url.params
    ago = datetime.now(UTC) - datetime.fromisoformat(sent["since"])
    assert timedelta(hours=2) <= ago < timedelta(hours=2, minutes=1)
    assert sent["until"] == "2026-11-23T09:30:00Z"
    run("events", "--since", "2026-11-24")
    assert api.asked[-1].url.params["since"] == "2026-11-24"


def test_required_options_are_named_as_options(api, run):
    refused = run("integrations", "create", "--name", "a")
    assert (refused.exit_code, api.asked) == (2, [])
    assert "Missing option --upstream-id" in refused.output


def test_a_table_fits_the_terminal(api, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    long = {**ONE, "url": f"https://example.com/{'x' * 50}", "owner": "key_" + "1" * 20}
    api.says(page(long, {**long, "id": "sub_2", "url": "https://example.net/"}))
    same, heading, one, two = run("subscriptions", terminal=True).output.splitlines()
    assert same.startswith("In each row: description search")
    assert f"owner {long['owner']}, state parked, pending 3, dead 0" in same
    assert heading.split() == ["id", "url"]
    assert one.endswith("\N{HORIZONTAL ELLIPSIS}")
    assert (one.split()[0], two.split()[0], len(one)) == ("sub_1", "sub_2", 60)


def test_statistics_are_a_table_with_percent(api, run):
    one = {"at": "2026-11-23T09:30:00Z", "attempts": 8, "delivered": 7, "p50_ms": 5, "p95_ms": 9}
    api.says({"attempts": 8, "success_rate": 0.875, "outcomes": {"delivered": 7}, "slices": [one]})
    shown = run("subscriptions", "statistics", "sub_1", terminal=True).output.splitlines()
    assert shown[1].split() == ["success_rate", "87.5%"]
    assert shown[-1].split() == ["2026-11-23T09:30:00Z", "8", "7", "87.5%", "5", "9"]


def test_history_is_a_row_for_each_series_that_is_not_zero(api, run):
    series = {"name": "polls_total", "labels": {"kind": "full"}, "kind": "counter", "unit": "count"}
    api.says(
        {
            "resolution": "minute",
            "since": "a",
            "until": "b",
            "series": [
                {**series, "values": [0, 4, None, 8]},
                {**series, "kind": "gauge", "labels": {}, "values": [8, 7.0]},
                {**series, "values": [0, None]},
            ],
        }
    )
    shown = run("history", terminal=True).output.splitlines()
    assert [line.split() for line in shown[-2:]] == [
        ["polls_total", "kind=full", "count", "12", "8", "▁▅", "█"],
        ["polls_total", "count", "-", "7", "█▇"],
    ]


def test_an_empty_list_says_so_on_a_terminal(api, run):
    api.says(page())
    assert run("credentials", terminal=True).output == "There are none.\n"


def test_pages_are_followed_up_to_the_limit(api, run):
    api.says(page(ONE, following="c1"), page(ONE, following="c2"))
    found = run("subscriptions", "list", "--limit", "2")
    assert [dict(one.url.params) for one in api.asked] == [
        {"limit": "2"},
        {"limit": "1", "after": "c1"},
    ]
    assert json.loads(found.stdout) == page(ONE, ONE, following="c2")
    assert found.stderr == ""  # it was asked for two
    api.says(page(ONE, following="c3"), page(ONE))
    assert len(json.loads(run("subscriptions", "list", "--all").output)["items"]) == 2
    api.says(page(*[ONE] * 100, following="c4"))
    assert "--after c4" in run("subscriptions", "list").stderr


def test_options_become_query_and_body(api, run):
    api.says(page())
    run("integrations", "list", "--state", "error,review", "--state", "paused", "--label", "a=b,c")
    assert api.asked[-1].url.params.multi_items() == [
        ("label", "a=b,c"),
        ("state", "error"),
        ("state", "review"),
        ("state", "paused"),
        ("limit", "100"),
    ]
    api.says(ONE)
    made = run(
        *("integrations", "create", "--name", "Acme", "--label", "region=eu", "--label", "a=b=c"),
        *("--upstream-id", "u"),
        *("--guard", "deleted_share=0.3", "--no-track-remote-data", "--delta-interval-seconds"),
        *("5", "--ignore-paths", "provider,revisions.title"),
    )
    assert made.exit_code == 0, made.output
    assert api.sent == {
        "name": "Acme",
        "upstream_id": "u",
        "labels": {"region": "eu", "a": "b=c"},
        "guards": {"deleted_share": 0.3},
        "track_remote_data": False,
        "delta_interval_seconds": 5,
        "ignore_paths": ["provider", "revisions.title"],
    }
    url = ("--data", '{"url": "https://example.com/"}')
    run("subscriptions", "create", *url, "--retry-schedule-seconds", "5,60", "--from", "oldest")
    assert api.sent == {
        "url": "https://example.com/",
        "retry_schedule_seconds": [5, 60],
        "from": "oldest",
    }
    run("subscriptions", "edit", "sub_1", "--clear", "labels", "--data", '{"paused": true}')
    assert api.sent == {"labels": None, "paused": True}
    assert api.asked[-1].method == "PATCH"


def test_secrets_are_read_from_files_and_standard_input(api, run, tmp_path):
    (tmp_path / "key").write_text("KEY\n")
    api.says(ONE)
    run("credentials", "edit", "cred_1", "--api-key", f"@{tmp_path}/key")
    assert api.sent == {"api_key": "KEY"}
    run("credentials", "edit", "cred_1", "--api-key", "@-", given="OTHER\n")
    assert api.sent == {"api_key": "OTHER"}
    run("subscriptions", "edit", "sub_1", "--header", f"authorization=@{tmp_path}/key")
    assert api.sent == {"headers": {"authorization": "KEY"}}
    run("subscriptions", "edit", "sub_1", "--description", "@home", "--label", "team=@one")
    assert api.sent == {"description": "@home", "labels": {"team": "@one"}}
    missing = run("credentials", "edit", "cred_1", "--api-key", "@/nowhere")
    assert (missing.exit_code, "/nowhere" in missing.output) == (2, True)


def test_ids_are_quoted(api, run):
    api.says(ONE)
    run("integrations", "show-course", "int_1", "a/b ?c")
    assert api.asked[-1].url.raw_path == b"/v1/integrations/int_1/courses/a%2Fb%20%3Fc"


def test_an_edit_of_nothing_is_refused(api, run):
    refused = run("subscriptions", "edit", "sub_1")
    assert (refused.exit_code, api.asked) == (2, [])
    assert "nothing to change" in refused.output


def test_verbs_with_a_fixed_body_take_no_fields(api, run):
    api.says(ONE)
    run("subscriptions", "pause", "sub_1", "--if-match", '"v1"')
    assert (api.sent, api.asked[-1].headers["if-match"]) == ({"paused": True}, '"v1"')
    assert run("subscriptions", "pause", "sub_1", "--label", "a=b").exit_code == 2


def test_what_deletes_asks_and_refuses_where_nobody_can_answer(api, run):
    api.answers = [httpx.Response(204)]
    delete = ("integrations", "delete", "int_1")
    refused = run(*delete)
    assert (refused.exit_code, api.asked) == (2, [])
    assert "give --yes" in refused.output
    declined = run(*delete, terminal=True, given="n\n")
    assert (declined.exit_code, api.asked) == (1, [])
    assert "Delete int_1" in declined.output
    for arguments, given in (((), "y\n"), (("--yes",), "")):
        done = run(*delete, *arguments, terminal=not arguments, given=given)
        assert (done.exit_code, done.stdout) == (0, "")
        assert "int_1 deleted" in done.stderr
    assert [one.method for one in api.asked] == ["DELETE", "DELETE"]


def test_a_review_is_shown_before_it_is_decided_and_decided_as_shown(api, run):
    held = page({"course_id": "c1", "kind": "deleted"}, state="open", deleted=1)
    api.says(held, headers={"etag": '"7"'})
    decide = ("reviews", "publish", "int_1")
    decided = run(*decide, terminal=True, given="y\n")
    assert decided.exit_code == 0, decided.output
    assert "c1" in decided.stderr
    shown, sent = api.asked
    assert (shown.method, sent.method, sent.headers["if-match"]) == ("GET", "POST", '"7"')
    assert json.loads(sent.content) == {"decision": "publish"}
    for arguments in ((), ("--yes",)):
        refused = run(*decide, *arguments)
        assert (refused.exit_code, "--if-match" in refused.output) == (2, True)
    given = run(*decide, "--yes", "--if-match", '"7"')
    assert given.exit_code == 0
    assert [one.method for one in api.asked] == ["GET", "POST", "POST"]


def test_a_secret_that_is_shown_once_has_a_note(api, run):
    api.says({"id": "key_1", "token": "cw_1"})
    for group in ("api-key", "api-keys"):
        made = run(group, "create", "--name", "a", "--scope", "read", "--get", "token")
        assert (made.stdout, "not shown again" in made.stderr) == ("cw_1\n", True)


def event(number, **data):
    about = {"event_id": f"evt_{number}", "course_id": "c", "changed": ["a", "b"], **data}
    return {"type": "course.updated", "timestamp": "2026-11-23T09:30:00.000Z", "data": about}


def test_events_are_followed_from_the_end_of_the_log(api, run):
    api.says(
        page(cursor="c0"),
        page(event(1), event(2), cursor="c2"),
        page(event(3), cursor="c3"),
    )
    followed = run("events", "--follow", "--limit", "3", "--type", "course.updated", terminal=True)
    assert [line.split()[0] for line in followed.output.splitlines()] == ["evt_1", "evt_2", "evt_3"]
    asked = [dict(one.url.params) for one in api.asked]
    assert [one["after"] for one in asked] == ["latest", "c0", "c2"]
    assert {one["order"] for one in asked} == {"asc"}
    assert {one["payload"] for one in asked} == {"thin"}
    api.says(page(event(4), cursor="c4"))
    found = run("events", "list", "--follow", "--limit", "1", "--after", "c3")
    assert json.loads(found.output) == event(4)
    assert api.asked[-1].url.params["after"] == "c3"
    run("events", "--follow", "--limit", "1", "--since", "1h")
    assert "after" not in api.asked[-1].url.params
    assert "payload" not in api.asked[-1].url.params  # whole, for who processes them


def test_a_problem_is_shown_whole(api, run):
    problem = {
        "title": "Invalid fields",
        "detail": "these fields cannot be accepted: url",
        "errors": [{"field": "url", "message": "is not a URL", "remedy": "send one"}],
    }
    api.answers = [httpx.Response(422, json=problem, headers={"x-request-id": "req_1"})]
    failed = run("subscriptions", "create", "--url", "x")
    assert failed.exit_code == 1
    assert isinstance(failed.exception, RemoteError)
    assert str(failed.exception).splitlines() == [
        "Invalid fields",
        "  url is not a URL: send one",
        "  request id: req_1",
    ]
    api.answers = [httpx.Response(404, json={"title": "Not found", "detail": "there is none"})]
    failed = run("subscriptions", "show", "sub_1")
    assert str(failed.exception) == "Not found: there is none"


def test_an_answer_that_is_no_json_is_no_answer_of_the_api(api, run):
    api.answers = [httpx.Response(200, text="<html>")]
    failed = run("subscriptions", "show", "sub_1")
    assert isinstance(failed.exception, RemoteError)
    assert "answers 200: the server at this address is not Coursewire's API" in str(
        failed.exception
    )
    api.answers = [httpx.Response(404, json={"detail": "Not Found"})]
    assert "is not Coursewire's API" in str(run("subscriptions", "show", "sub_1").exception)
    api.says({"status": "up"})
    for arguments in (("subscriptions",), ("status",)):
        failed = run(*arguments)
        assert "is not Coursewire's API" in f"{failed.output}{failed.exception}"


def test_where_and_as_whom_is_said_before_the_verb_or_in_the_environment(
    api, run, monkeypatch, tmp_path
):
    api.says(page())
    (tmp_path / "token").write_text("of-a-file\n")
    options = ("--url", "http://one:1/", "--token-file", f"{tmp_path}/token")
    for arguments in ((*options, "credentials", "list"), ("credentials", *options, "list")):
        assert run(*arguments).exit_code == 0
        assert str(api.asked[-1].url).startswith("http://one:1/v1/credentials?")
        assert api.asked[-1].headers["authorization"] == "Bearer of-a-file"
    (tmp_path / "other").write_text("of-another")
    for arguments in (
        ("me", "--token-file", f"{tmp_path}/other"),
        ("me", "show", f"--token-file={tmp_path}/other"),
        ("integrations", *options[:2], "--token-file", f"{tmp_path}/other", "--state", "error"),
        (*options, "integrations", "list", "--token-file", f"{tmp_path}/other"),
        ("subscriptions", "create", "--url", "https://a/", "--token-file", f"{tmp_path}/other"),
    ):
        assert run(*arguments).exit_code == 0, arguments
        assert api.asked[-1].headers["authorization"] == "Bearer of-another"
    (tmp_path / "empty").write_text("")
    empty = run("me", "--token-file", f"{tmp_path}/empty")
    assert f"--token-file names {tmp_path}/empty, which is empty" in str(empty.exception)
    missing = run("me", "--token-file", "nofile")
    assert missing.exit_code == 2
    assert "'--token-file': File 'nofile' does not exist" in missing.output
    (tmp_path / "api-url").write_text("http://up:2\n")
    run("credentials")
    assert api.asked[-1].url.host == "up"
    monkeypatch.setenv("COURSEWIRE_URL", "http://environment:3")
    monkeypatch.setenv("COURSEWIRE_TOKEN", "of-the-environment")
    run("credentials")
    assert api.asked[-1].url.host == "environment"
    assert api.asked[-1].headers["authorization"] == "Bearer of-the-environment"


@pytest.mark.parametrize(
    ("arguments", "answer", "code"),
    [
        (("integrations", "check", "int_1"), {"ok": True}, 0),
        (
            ("integrations", "check-values", "--upstream-id", "u"),
            {"ok": False, "remedy": "try another"},
            1,
        ),
        (("subscriptions", "test", "sub_1"), {"outcome": "delivered"}, 0),
        (("subscriptions", "test", "sub_1"), {"outcome": "connect"}, 1),
    ],
)
def test_the_exit_code_of_a_check_is_what_it_found(api, run, arguments, answer, code):
    api.says(answer)
    found = run(*arguments)
    assert (json.loads(found.output), found.exit_code) == (answer, code)


# --- help and completion --------------------------------------------------------------------------

COMMANDS = [(group, verb) for group, one in RESOURCES.items() for verb in one.verbs]
# Operations that no resource has a verb for, and what runs them instead.
ELSEWHERE = {
    "showStatus": "coursewire status",
    "pause": "coursewire pause",
    "resume": "coursewire resume",
    "streamEvents": "`coursewire events --follow` waits for the same events in the same log",
}


def test_every_operation_has_a_command():
    used = {verb.operation for one in RESOURCES.values() for verb in one.verbs.values()}
    assert used | set(ELSEWHERE) == set(operations())
    assert not used & set(ELSEWHERE)


@pytest.mark.parametrize(("group", "verb"), COMMANDS)
def test_every_command_explains_itself_without_a_service(group, verb):
    shown = CliRunner().invoke(coursewire, [group, verb, "--help"])
    assert shown.exit_code == 0, shown.output
    for name in operations()[RESOURCES[group].verbs[verb].operation].arguments:
        assert name.upper() in shown.output


@pytest.mark.parametrize(
    ("arguments", "said", "unsaid"),
    [
        ("replays", "sent again", "Without a command"),
        ("deliveries", "subscriptions retry", "null"),
        ("events list", "[default: desc", "Oldest first"),
        ("reviews publish", "Do not ask for confirmation; requires --if-match.", "null"),
        ("subscriptions edit", "--clear labels: any; else", "null:"),
        ("subscriptions create", "Left out: any; else", "null:"),
        ("integrations create", "deleted_count=10 deleted_share=0.15", "{"),
        ("history show", "or how long ago: 30m, 1h, 2d", "null:"),
    ],
)
def test_help_speaks_of_commands_and_options(arguments, said, unsaid):
    shown = CliRunner().invoke(coursewire, [*arguments.split(), "--help"]).output
    text = " ".join(shown.split())
    assert said in text
    assert unsaid not in text


def test_the_commands_are_listed_in_two_sections():
    shown = CliRunner().invoke(coursewire, ["--help"]).output
    asking, running = shown.partition("Over the API:")[2].split("On this machine:")
    assert all(f"  {name} " in asking for name in (*RESOURCES, "apply", "status", "pause"))
    assert all(f"  {name} " in running for name in ("up", "worker", "demo", "doctor"))


@pytest.mark.parametrize("name", RESOURCES)
def test_the_examples_of_a_group_are_commands(name):
    shown = CliRunner().invoke(coursewire, [name, "--help"])
    assert shown.exit_code == 0
    assert RESOURCES[name].examples.partition("\n")[0] in shown.output


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("coursewire sub", {"subscriptions"}),
        ("coursewire subscriptions ro", {"rotate-secret"}),
        ("coursewire subscriptions create --payl", {"--payload"}),
        ("coursewire replays create sub_1 --which de", {"dead"}),
        ("coursewire integrations list --state error,re", {"error,review"}),
        ("coursewire subscriptions show sub_", {"sub_1"}),
    ],
)
def test_shells_complete_commands_options_words_and_ids(api, run, monkeypatch, words, found):
    api.says(page(ONE))
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    monkeypatch.setenv("_COURSEWIRE_COMPLETE", "bash_complete")
    shown = run()
    assert {line.partition(",")[2] for line in shown.output.splitlines()} == found
