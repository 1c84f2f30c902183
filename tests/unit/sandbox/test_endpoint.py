"""What the sandbox's courses endpoint takes and answers, against a naive model of its rules."""

from __future__ import annotations

import base64
import functools
import itertools
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker

from service.sandbox.catalogue import Catalogue
from service.sandbox.changes import ChangeRequest
from service.sandbox.endpoint import Endpoint, Incoming
from service.sandbox.rate import Budget

SCHEMA = json.loads(Path(__file__).with_name("sandbox_schema.json").read_text(encoding="utf-8"))
PARAMETERS = SCHEMA["$defs"]["parameters"]
NOW = 1_795_424_000_000
UPSTREAM = "workday:HWUTwvyx2wLoSUHphiWVrp28"
LIMITED = "moodle:no-remote-ids"
KEY = "sandbox-key"


def validator(name):
    return Draft202012Validator(
        {"$ref": f"#/$defs/{name}", "$defs": SCHEMA["$defs"]}, format_checker=FormatChecker()
    )


POSITIVE, ERROR, RECORD = validator("positive"), validator("error"), validator("record")
_seen_records = set()


def check(answer):
    """The answer's document, once it was found to fit the schema of its kind."""
    document = json.loads(answer.body)
    assert {"ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"} <= answer.headers.keys()
    if answer.status != 200:
        ERROR.validate(document)
        return document
    # The same record in a thousand answers is validated once.
    records = document["data"]["results"]
    for record in records:
        text = json.dumps(record)
        if text not in _seen_records:
            RECORD.validate(record)
            _seen_records.add(text)
    POSITIVE.validate({**document, "data": {**document["data"], "results": records[:1]}})
    return document


@pytest.fixture(scope="module")
def endpoint():
    endpoint = Endpoint(api_key=KEY, rate_limit_per_minute=10**9, seed=7)
    endpoint.catalogues[UPSTREAM] = varied(UPSTREAM)
    endpoint.catalogues[LIMITED] = varied(LIMITED, unsupported_filters=frozenset({"remote_ids"}))
    return endpoint


def varied(upstream_id, **kwargs):
    """A small catalogue that has courses in every state and with every kind of change."""
    catalogue = Catalogue(upstream_id, courses=18, seed=7, **kwargs)
    catalogue.apply([ChangeRequest(op="delete", count=5)], NOW)
    catalogue.apply(
        [
            ChangeRequest(op="anonymise"),
            ChangeRequest(op="anonymise", keep_deleted_at=False),
            ChangeRequest(op="restore"),
            ChangeRequest(op="vanish", count=2),
            ChangeRequest(op="edit", count=3),
            ChangeRequest(op="provider", count=2),
            ChangeRequest(op="skill"),
            ChangeRequest(op="revision_add"),
            ChangeRequest(op="create", count=2),
        ],
        NOW + 60_000,
    )
    return catalogue


def ask(endpoint, parameters, upstream_id=UPSTREAM, key=KEY, method="GET"):
    query = parameters if isinstance(parameters, str) else urlencode(parameters)
    headers = {"authorization": f"Bearer {key}", "x-integration-id": upstream_id}
    answer, _ = endpoint.answer(Incoming(method, query, headers), NOW + 120_000)
    return answer


def poll(endpoint, parameters, upstream_id=UPSTREAM):
    """The ids on each page of a poll."""
    pages, cursor = [], None
    while True:
        with_cursor = parameters if cursor is None else {**parameters, "cursor": cursor}
        answer = ask(endpoint, with_cursor, upstream_id)
        assert answer.status == 200, answer.body
        data = check(answer)["data"]
        pages.append([record["id"] for record in data["results"]])
        cursor = data["next"]
        if cursor is None:
            return pages


# --- the naive model ----------------------------------------------------------------------


@functools.cache
def to_time(text):
    """The time that `updated_after` names; None where there is no such time."""
    if not Draft202012Validator(PARAMETERS["updated_after"]).is_valid(text):
        return None
    plain, _, fraction = text.removesuffix("Z").partition(".")
    try:
        moment = datetime.fromisoformat(plain).replace(tzinfo=UTC)
    except ValueError:
        return None
    return moment + timedelta(microseconds=int((fraction + "000000")[:6]))


def expected(catalogue, parameters):
    """The ids that the rules call for, from plain readings of each course's state."""
    ids = []
    for course in catalogue.courses():
        wanted = course.state == "live" or (
            course.state in {"deleted", "anonymised"}
            and parameters.get("include_deleted") == "true"
        )
        if "updated_after" in parameters:
            updated_at = datetime.fromisoformat(course.updated_at)
            wanted = wanted and updated_at > to_time(parameters["updated_after"])
        if "ids" in parameters:
            wanted = wanted and course.id in parameters["ids"].split(",")
        if "remote_ids" in parameters:
            if "remote_ids" not in catalogue.unsupported_filters:
                wanted = wanted and course.remote_id in parameters["remote_ids"].split(",")
            elif parameters.get("ignore_unsupported_filters") != "true":
                wanted = False
        if wanted:
            ids.append(course.id)
    return ids


def choices(catalogue):
    """For each filter its absence and the values worth combining."""
    courses = catalogue.courses()
    remote = [course.remote_id for course in courses if course.remote_id is not None]
    stamps = sorted(course.updated_at for course in courses)
    first_change = datetime.fromtimestamp(NOW / 1000, UTC)
    booleans = [None, *PARAMETERS["include_deleted"]["enum"]]
    return {
        "updated_after": [
            None,
            "2023-01-01",
            "2999-12-31T23:59:59Z",
            stamps[-1],
            stamps[-4],
            first_change.strftime("%Y-%m-%dT%H:%M:%S"),
        ],
        "include_deleted": booleans,
        "ignore_unsupported_filters": booleans,
        "ids": [
            None,
            "",
            courses[3].id,
            ",".join(course.id for course in courses[::2]) + ",unknown",
        ],
        "remote_ids": [None, "no-such", ",".join(remote[1::3]), f"{remote[3]},,{remote[0]}"],
    }


@pytest.mark.parametrize("upstream_id", [UPSTREAM, LIMITED])
def test_every_combination_of_filters_gives_what_the_rules_call_for(endpoint, upstream_id):
    catalogue = endpoint.catalogues[upstream_id]
    offered = choices(catalogue)
    assert offered.keys() == PARAMETERS.keys() - {"cursor", "page_size"}
    lengths = set()
    for combination in itertools.product(*offered.values()):
        parameters = {
            name: value
            for name, value in zip(offered, combination, strict=True)
            if value is not None
        }
        wanted = expected(catalogue, parameters)
        assert poll(endpoint, parameters, upstream_id) == [wanted], parameters
        lengths.add(len(wanted))
    assert len(lengths) > 5


@given(data=st.data(), page_size=st.integers(1, 250))
@settings(max_examples=150, deadline=None)
def test_pages_of_any_size_give_each_record_once_and_in_order(endpoint, data, page_size):
    catalogue = endpoint.catalogues[UPSTREAM]
    parameters = {"page_size": str(page_size)}
    for name, values in choices(catalogue).items():
        value = data.draw(st.sampled_from(values), label=name)
        if value is not None:
            parameters[name] = value
    pages = poll(endpoint, parameters)
    wanted = expected(catalogue, parameters)
    assert list(itertools.chain(*pages)) == wanted
    assert all(len(page) == page_size for page in pages[:-1])
    assert len(pages) == max(1, -(-len(wanted) // page_size))


# --- validation ---------------------------------------------------------------------------


def is_valid(name, text):
    """Whether the schema takes the value; a number is read as a query string carries it."""
    if name == "updated_after":
        return to_time(text) is not None
    value = int(text) if name == "page_size" and text.isascii() and text.isdigit() else text
    return Draft202012Validator(PARAMETERS[name]).is_valid(value)


TEXTS = {
    "page_size": [
        *("1", "250", "007", "0", "251", "", "1.0", "+5", " 5", "1e2", "-1", "٣", "0x10"),
        "9" * 30,
    ],
    "updated_after": [
        "2026-02-28",
        "2026-02-28Z",
        "2026-02-28T10:00:00",
        "2026-02-28T10:00:00.1234567Z",
        "2026-02-29",
        "2026-02-28T24:00:00Z",
        "2026-02-28T23:59:60Z",
        "2026-02-28 10:00:00",
        "2026-02-28T10:00Z",
        "2026-02-28T10:00:00+01:00",
        "2026-02-28T10:00:00.Z",
        "0000-01-01",
        "1969-12-31T23:59:59.999Z",
        "2026-2-28",
        "2026-02-28z",
        "2026-02-28\n",
        "२०२६-02-28",
        "1795424000",
        "",
    ],
    "include_deleted": ["true", "false", "True", "1", "yes", "", " true"],
    "ignore_unsupported_filters": ["true", "false", "FALSE", "0", "null"],
    "ids": ["", ",", "a,b", "é,日本"],
    "remote_ids": ["", ",", "a,b", "a b&c=d"],
}
DRAWN = {name: st.sampled_from(texts) for name, texts in TEXTS.items()} | {
    "page_size": st.text("0123456789", min_size=1, max_size=4),
    "updated_after": st.from_regex(PARAMETERS["updated_after"]["pattern"], fullmatch=True),
    "ids": st.text(max_size=8),
    "remote_ids": st.text(max_size=8),
}


def assert_judged_by_the_schema(endpoint, parameters):
    answer = ask(endpoint, parameters)
    document = check(answer)
    unfit = [name for name, text in parameters.items() if not is_valid(name, text)]
    if unfit:
        assert answer.status == 400
        assert document["error"]["code"] == "PLATFORM.INPUT_INVALID"
        assert any(f"query.{name}" in document["error"]["message"] for name in unfit)
    else:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, texts in TEXTS.items() for text in texts]
)
def test_a_value_is_refused_exactly_when_it_does_not_fit_the_schema(endpoint, name, text):
    assert_judged_by_the_schema(endpoint, {name: text})


@given(parameters=st.fixed_dictionaries({}, optional=DRAWN))
@settings(max_examples=250, deadline=None)
def test_values_are_judged_together_as_they_are_alone(endpoint, parameters):
    assert_judged_by_the_schema(endpoint, parameters)


@pytest.mark.parametrize("query", ["page_size=1&page_size=1", "page_siez=10", "ids=a&ids=b"])
def test_a_repeated_or_unknown_parameter_is_refused(endpoint, query):
    answer = ask(endpoint, query)
    assert answer.status == 400
    assert check(answer)["error"]["code"] == "PLATFORM.INPUT_INVALID"


def test_the_default_page_size_is_100():
    endpoint = Endpoint(api_key=KEY, rate_limit_per_minute=100, seed=1)
    endpoint.catalogues[UPSTREAM] = Catalogue(UPSTREAM, courses=130, seed=1)
    assert [len(page) for page in poll(endpoint, {})] == [100, 30]


# --- cursors ------------------------------------------------------------------------------


def first_cursor(endpoint, parameters=(), upstream_id=UPSTREAM):
    answer = ask(endpoint, {**dict(parameters), "page_size": "4"}, upstream_id)
    return check(answer)["data"]["next"]


def assert_refused_cursor(answer):
    document = check(answer)
    assert answer.status == 400
    assert document["error"]["code"] == "PLATFORM.INPUT_INVALID"
    assert "query.cursor" in document["error"]["message"]


def test_a_cursor_goes_on_with_another_page_size(endpoint):
    cursor = first_cursor(endpoint)
    answer = ask(endpoint, {"cursor": cursor, "page_size": "250"})
    ids = [record["id"] for record in check(answer)["data"]["results"]]
    assert ids == expected(endpoint.catalogues[UPSTREAM], {})[4:]


def test_a_cursor_with_any_character_changed_is_refused(endpoint):
    cursor = first_cursor(endpoint)
    for index, character in enumerate(cursor):
        for other in {"A", "B", "+", "=", "", "\n"} - {character}:
            assert_refused_cursor(
                ask(endpoint, {"cursor": cursor[:index] + other + cursor[index + 1 :]})
            )


def test_another_spelling_of_a_cursor_is_refused(endpoint):
    cursor = first_cursor(endpoint)
    body, padding = cursor.rstrip("="), cursor[len(cursor.rstrip("=")) :]
    assert padding == "=="
    # The last character before the padding has spare bits that decoding drops.
    spelled = body[:-1] + chr(ord(body[-1]) + 1) + padding
    assert base64.b64decode(spelled) == base64.b64decode(cursor)
    assert_refused_cursor(ask(endpoint, {"cursor": spelled}))


@pytest.mark.parametrize("cursor", ["", "garbage", "é", "=", "MTI=", "eyJwYWdlIjoxMn0="])
def test_what_was_never_a_cursor_is_refused(endpoint, cursor):
    assert_refused_cursor(ask(endpoint, {"cursor": cursor}))


def test_a_cursor_of_another_integration_is_refused(endpoint):
    assert_refused_cursor(ask(endpoint, {"cursor": first_cursor(endpoint)}, LIMITED))


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"include_deleted": "true"}, {}),
        ({}, {"include_deleted": "true"}),
        ({"updated_after": "2021-01-01"}, {}),
        ({"updated_after": "2021-01-01"}, {"updated_after": "2021-01-02"}),
        ({}, {"ids": "x"}),
        ({}, {"remote_ids": "x"}),
        ({"ignore_unsupported_filters": "true"}, {}),
    ],
)
def test_a_cursor_is_refused_without_the_filters_it_was_issued_for(endpoint, first, then):
    cursor = first_cursor(endpoint, first)
    assert ask(endpoint, {**first, "cursor": cursor}).status == 200
    assert_refused_cursor(ask(endpoint, {**then, "cursor": cursor}))


def test_the_same_filter_in_other_words_keeps_a_cursor_good(endpoint):
    cursor = first_cursor(endpoint, {"updated_after": "2021-01-01"})
    same = {"updated_after": "2021-01-01T00:00:00.000Z", "cursor": cursor}
    assert ask(endpoint, same).status == 200


# --- who may ask --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "PLATFORM.AUTHENTICATION_INVALID"),
        ({"authorization": "Bearer wrong"}, 401, "PLATFORM.AUTHENTICATION_INVALID"),
        ({"authorization": f"Basic {KEY}"}, 401, "PLATFORM.AUTHENTICATION_INVALID"),
        ({"authorization": "Bearer é"}, 401, "PLATFORM.AUTHENTICATION_INVALID"),
        ({"authorization": f"Bearer {KEY}"}, 400, "PLATFORM.INPUT_INVALID"),
        (
            {"authorization": f"Bearer {KEY}", "x-integration-id": "workday:nobody"},
            404,
            "PLATFORM.INTEGRATION_NOT_FOUND",
        ),
        ({"authorization": f"bearer {KEY}", "x-integration-id": UPSTREAM}, 200, None),
    ],
)
def test_a_request_needs_the_key_and_a_known_integration(endpoint, headers, status, code):
    answer, served = endpoint.answer(Incoming("GET", "", headers), NOW)
    document = check(answer)
    assert answer.status == status
    assert document.get("error", {}).get("code") == code
    assert (served.status, served.code) == (status, code)


def test_only_get_is_offered(endpoint):
    answer = ask(endpoint, {}, method="POST")
    assert answer.status == 405
    check(answer)


def test_the_budget_of_a_key_is_announced_and_kept_and_renewed_after_a_minute():
    endpoint = Endpoint(api_key=KEY, rate_limit_per_minute=2, seed=1)
    endpoint.catalogues[UPSTREAM] = Catalogue(UPSTREAM, courses=1, seed=1)
    headers = {"authorization": f"Bearer {KEY}", "x-integration-id": UPSTREAM}

    def at(milliseconds, headers=headers):
        answer, _ = endpoint.answer(Incoming("GET", "", headers), NOW + milliseconds)
        check(answer)
        announced = {
            name.removeprefix("ratelimit-"): answer.headers[name]
            for name in ("ratelimit-limit", "ratelimit-remaining", "ratelimit-reset")
        }
        return answer, announced

    assert at(0)[1] == {"limit": "2", "remaining": "1", "reset": "60"}
    assert at(10_500)[1] == {"limit": "2", "remaining": "0", "reset": "50"}
    refused, announced = at(59_500)
    assert refused.status == 429
    assert json.loads(refused.body)["error"]["code"] == "PLATFORM.RATE_LIMIT_EXCEEDED"
    assert refused.headers["retry-after"] == announced["reset"] == "1"
    assert at(59_900, headers={})[0].status == 401
    assert at(60_000)[0].status == 200


def test_a_clock_that_is_put_back_leaves_the_window_it_was_in():
    budget = Budget(2)
    budget.spend(NOW)
    assert budget.spend(NOW + 30_000).remaining == 0
    back = budget.spend(NOW - 3_600_000)
    assert (back.granted, back.remaining, back.reset_seconds) == (True, 1, 60)
