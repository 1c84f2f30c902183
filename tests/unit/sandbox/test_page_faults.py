"""Faults in what a page holds and in which page comes next."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import msgspec
import pytest

from service.sandbox.catalogue import Catalogue
from service.sandbox.content import Course
from service.sandbox.endpoint import Endpoint, Incoming
from service.sandbox.faults import AnyFault

NOW = 1_795_424_000_000
UPSTREAM = "sandbox:demo"
HEADERS = {"authorization": "Bearer sandbox-key", "x-integration-id": UPSTREAM}


@pytest.fixture
def endpoint():
    endpoint = Endpoint(api_key="sandbox-key", rate_limit_per_minute=10**6, seed=7)
    endpoint.catalogues[UPSTREAM] = Catalogue(UPSTREAM, courses=20, seed=7)
    return endpoint


def fault(endpoint, **what):
    return endpoint.faults.add(msgspec.convert(what, AnyFault))


def ask(endpoint, **parameters):
    query = urlencode({key: value for key, value in parameters.items() if value is not None})
    answer, served = endpoint.answer(Incoming("GET", query, HEADERS), NOW)
    assert answer.status == 200, answer.body
    assert served.status == 200
    return json.loads(answer.body)["data"]


def pages(endpoint, most=100, **parameters):
    """The ids of each page of a poll, and the cursors it went by, for at most `most` pages."""
    found, cursors, cursor = [], [], None
    while len(found) < most:
        data = ask(endpoint, cursor=cursor, **parameters)
        found.append([record["id"] for record in data["results"]])
        cursor = data["next"]
        if cursor is None:
            break
        cursors.append(cursor)
    return found, cursors


def all_ids(endpoint):
    return [course.id for course in endpoint.catalogues[UPSTREAM].courses()]


# --- shift --------------------------------------------------------------------------------


def test_records_are_skipped_where_pages_shift_forward(endpoint):
    ids = all_ids(endpoint)
    fault(endpoint, kind="shift", by=3, on="later", times=1)
    found, _ = pages(endpoint, page_size=6)
    assert found == [ids[:6], ids[9:15], ids[15:]]


def test_records_come_twice_where_pages_shift_back(endpoint):
    ids = all_ids(endpoint)
    fault(endpoint, kind="shift", by=-2, on="later", times=1)
    found, _ = pages(endpoint, page_size=6)
    assert found == [ids[:6], ids[4:10], ids[10:16], ids[16:]]


@pytest.mark.parametrize(("by", "expected"), [(100, 0), (-100, 20)])
def test_a_shift_ends_where_the_records_do(endpoint, by, expected):
    cursor = ask(endpoint, page_size=6)["next"]
    fault(endpoint, kind="shift", by=by, on="later")
    data = ask(endpoint, page_size=250, cursor=cursor)
    assert (len(data["results"]), data["next"]) == (expected, None)


def test_a_page_beyond_the_last_record_may_shift_back(endpoint):
    cursor = ask(endpoint, page_size=19)["next"]
    missing = all_ids(endpoint)[-1]
    fault(endpoint, kind="vanish", course_ids=[missing])
    fault(endpoint, kind="shift", by=-2)
    data = ask(endpoint, page_size=19, cursor=cursor)
    assert [record["id"] for record in data["results"]] == all_ids(endpoint)[17:19]


def test_a_shift_counts_the_records_that_the_query_finds(endpoint):
    ids = ",".join(all_ids(endpoint)[::2])
    cursor = ask(endpoint, ids=ids, page_size=4)["next"]
    fault(endpoint, kind="shift", by=-3, on="ids")
    data = ask(endpoint, ids=ids, page_size=4, cursor=cursor)
    assert [record["id"] for record in data["results"]] == all_ids(endpoint)[::2][1:5]


# --- cursors that lead nowhere ------------------------------------------------------------


def test_a_repeated_cursor_asks_for_the_same_page_until_the_fault_is_over(endpoint):
    ids = all_ids(endpoint)
    fault(endpoint, kind="repeat_cursor", on="later", times=2)
    found, cursors = pages(endpoint, page_size=8)
    assert found == [ids[:8], ids[8:16], ids[8:16], ids[8:16], ids[16:]]
    assert len(set(cursors[:3])) == 1


def test_a_first_page_may_lead_to_itself_and_a_last_one_too(endpoint):
    ids = all_ids(endpoint)
    fault(endpoint, kind="repeat_cursor", times=2)
    found, cursors = pages(endpoint, page_size=250)
    assert found == [ids, ids, ids]
    assert cursors[0] == cursors[1]


def test_endless_paging_begins_again_under_cursors_never_seen_before(endpoint):
    ids = all_ids(endpoint)
    endless = fault(endpoint, kind="endless")
    found, cursors = pages(endpoint, most=12, page_size=8)
    assert found == [ids[:8], ids[8:16], ids[16:]] * 4
    assert len(set(cursors)) == 12
    endpoint.faults.remove(endless.id)
    data = ask(endpoint, page_size=8, cursor=cursors[-2])
    assert ([record["id"] for record in data["results"]], data["next"]) == (ids[16:], None)


def test_endless_paging_of_nothing_is_endless_too(endpoint):
    fault(endpoint, kind="endless")
    found, cursors = pages(endpoint, most=5, updated_after="2999-01-01")
    assert found == [[]] * 5
    assert len(set(cursors)) == 5


def test_a_poll_that_ends_early_ends_whatever_else_is_wrong(endpoint):
    for kind in ("endless", "repeat_cursor", "end_early"):
        fault(endpoint, kind=kind)
    assert ask(endpoint, page_size=8)["next"] is None


# --- wrong types --------------------------------------------------------------------------


def test_records_have_a_string_in_place_of_their_revisions(endpoint):
    fault(endpoint, kind="wrong_types")
    records = ask(endpoint)["results"]
    assert [record["id"] for record in records] == all_ids(endpoint)
    assert {type(record["revisions"]) for record in records} == {str}
    assert {type(record["integration_fields"]) for record in records} == {list}


@pytest.mark.parametrize("path", Course.__struct_fields__)
def test_the_type_is_wrong_whatever_the_field(endpoint, path):
    fault(endpoint, kind="wrong_types", path=path)
    cursor = None
    for _ in range(4):
        data = ask(endpoint, page_size=5, cursor=cursor)
        for record in data["results"]:
            assert record.keys() == set(Course.__struct_fields__)
            with pytest.raises(msgspec.ValidationError, match=rf"\$\.{path}"):
                msgspec.convert(record, Course)
        cursor = data["next"]


def test_a_share_of_the_records_is_wrong_always_the_same_ones_and_those_named(endpoint):
    def wrong(**parameters):
        return {
            record["id"]
            for record in ask(endpoint, **parameters)["results"]
            if not isinstance(record["revisions"], list)
        }

    share = fault(endpoint, kind="wrong_types", share=0.5)
    chosen = wrong()
    assert wrong() == chosen
    assert wrong(ids=",".join(chosen)) == chosen
    assert 3 < len(chosen) < 17
    endpoint.faults.remove(share.id)
    named = next(course_id for course_id in all_ids(endpoint) if course_id not in chosen)
    fault(endpoint, kind="wrong_types", share=0, course_ids=[named])
    assert wrong() == {named}


def test_a_page_may_have_an_object_in_place_of_its_records(endpoint):
    fault(endpoint, kind="wrong_types", where="page", on="first")
    data = ask(endpoint, page_size=8)
    assert [record["id"] for record in data["results"].values()] == all_ids(endpoint)[:8]
    assert len(ask(endpoint, page_size=8, cursor=data["next"])["results"]) == 8


def test_wrong_types_in_two_fields_combine_even_in_the_id(endpoint):
    fault(endpoint, kind="wrong_types", path="id", share=0, course_ids=all_ids(endpoint)[:2])
    fault(endpoint, kind="wrong_types", path="provider")
    records = ask(endpoint)["results"]
    assert [type(record["id"]) for record in records] == [int] * 2 + [str] * 18
    assert {type(record["provider"]) for record in records[2:]} == {str}


@pytest.mark.parametrize(
    "unfit",
    [
        {"kind": "wrong_types", "path": "title"},
        {"kind": "wrong_types", "where": "nowhere"},
        {"kind": "shift"},
        {"kind": "shift", "by": 0.5},
    ],
)
def test_a_fault_that_means_nothing_is_refused(unfit):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(unfit, AnyFault)


def test_a_struck_request_says_so_in_the_log_of_what_was_served(endpoint):
    kinds = ("shift", "repeat_cursor", "endless", "wrong_types")
    for kind in kinds:
        fault(endpoint, kind=kind, times=1, **({"by": 1} if kind == "shift" else {}))
    ask(endpoint)
    ask(endpoint)
    assert [entry.faults for entry in endpoint.served()] == [kinds, ()]
