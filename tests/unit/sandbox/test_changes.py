"""Which courses a request for changes takes, and which times it gives them."""

from __future__ import annotations

import json

import pytest

from service.sandbox.catalogue import Catalogue
from service.sandbox.changes import ChangeRequest, State
from service.sandbox.content import format_time
from service.sandbox.query import Query

NOW = 1_795_424_000_000
LATE = "2026-11-23T08:00:00.000Z"
LATE_MS = 1_795_420_800_000


@pytest.fixture
def catalogue():
    return Catalogue("sandbox:demo", courses=30, seed=3)


def apply(catalogue, op, **kwargs):
    return catalogue.apply([ChangeRequest(op=op, **kwargs)], NOW)


def record(catalogue, course_id):
    return json.loads(catalogue.record(course_id))


def changed_since(catalogue, moment):
    query = Query(page_size=250, updated_after=moment, include_deleted=True)
    return {json.loads(body)["id"] for body in catalogue.select(query).records}


def ids(changes):
    return {change.course_id for change in changes}


# --- all that fit -------------------------------------------------------------------------


def test_a_model_that_is_switched_off_and_on_again_leaves_every_course_as_it_was(catalogue):
    before = {course.id: record(catalogue, course.id) for course in catalogue.courses()}
    assert ids(apply(catalogue, "delete", all=True)) == before.keys()
    assert catalogue.live == 0
    assert catalogue.select(Query()).records == []
    restored = apply(catalogue, "restore", all=True)
    assert ids(restored) == before.keys()
    for change in restored:
        after = record(catalogue, change.course_id)
        assert after == before[change.course_id] | {"changed_at": change.at}


@pytest.mark.parametrize("op", ["restore", "edit", "delete", "revision_remove"])
def test_all_of_none_is_no_change_and_no_error(op):
    assert apply(Catalogue("sandbox:demo", courses=0, seed=1), op, all=True) == []


def test_all_takes_only_courses_that_the_operation_fits(catalogue):
    gone = ids(apply(catalogue, "delete", count=7))
    edited = ids(apply(catalogue, "edit", all=True, path="custom_fields"))
    assert edited == {course.id for course in catalogue.courses()} - gone
    spare = {key for key in edited if len(record(catalogue, key)["revisions"]) > 1}
    assert ids(apply(catalogue, "revision_remove", all=True)) == spare
    assert 0 < len(spare) < len(edited)


def test_all_takes_courses_that_the_same_request_has_changed_already(catalogue):
    done = catalogue.apply(
        [ChangeRequest(op="edit", count=5), ChangeRequest(op="delete", all=True)], NOW
    )
    assert len(done) == 35
    assert {course.state for course in catalogue.courses()} == {State.DELETED}


# --- other times --------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["edit", "delete", "anonymise", "revision_add"])
def test_a_change_becomes_visible_late_under_the_time_it_is_given(catalogue, op):
    course_id = catalogue.courses()[4].id
    (done,) = apply(catalogue, op, course_id=course_id, updated_at=LATE)
    assert done.at == format_time(NOW)
    assert changed_since(catalogue, LATE_MS - 1) == {course_id}
    assert changed_since(catalogue, LATE_MS) == set()
    assert LATE in json.dumps(record(catalogue, course_id))
    assert done.at not in json.dumps(record(catalogue, course_id))


def test_a_new_course_may_be_older_than_others(catalogue):
    (done,) = apply(catalogue, "create", updated_at=LATE)
    created = record(catalogue, done.course_id)
    assert created["remote_created_at"] == created["changed_at"] == LATE
    assert changed_since(catalogue, LATE_MS - 1) == {done.course_id}
    assert changed_since(catalogue, LATE_MS) == set()


def test_a_course_may_come_back_under_an_older_time(catalogue):
    (gone,) = apply(catalogue, "vanish")
    (back,) = apply(catalogue, "restore", updated_at=LATE)
    assert back.course_id == gone.course_id
    assert record(catalogue, back.course_id)["changed_at"] == LATE
    assert changed_since(catalogue, LATE_MS) == set()


def test_many_changes_may_carry_the_same_time_and_are_logged_in_order(catalogue):
    done = apply(catalogue, "edit", count=20, updated_at=LATE)
    assert [change.at for change in done] == [format_time(NOW + step) for step in range(20)]
    assert {c.updated_at for c in catalogue.courses() if c.id in ids(done)} == {LATE}
    assert changed_since(catalogue, LATE_MS - 1) == ids(done)


def test_a_time_that_was_given_does_not_move_the_times_of_later_changes(catalogue):
    apply(catalogue, "edit", updated_at="2099-01-01T00:00:00.000Z")
    (later,) = apply(catalogue, "edit")
    assert later.at == format_time(NOW + 1)


# --- requests that nothing could satisfy --------------------------------------------------


@pytest.mark.parametrize(
    "unfit",
    [
        {"op": "edit", "all": True, "count": 2},
        {"op": "edit", "all": True, "course_id": "x"},
        {"op": "create", "all": True},
        {"op": "provider", "all": True, "path": "provider.name"},
        {"op": "provider", "updated_at": LATE},
        {"op": "skill", "updated_at": LATE},
        {"op": "edit", "updated_at": "2026-11-23"},
        {"op": "edit", "updated_at": "2026-11-23T08:00:00Z"},
        {"op": "edit", "updated_at": "2026-11-23T08:00:00.000+00:00"},
        {"op": "edit", "updated_at": "1969-12-31T23:59:59.000Z"},
        {"op": "edit", "updated_at": "yesterday"},
        {"op": "field_off"},
        {"op": "field_off", "path": "id"},
        {"op": "field_off", "path": "revisions.title", "all": True},
        {"op": "field_on", "path": "revisions.title", "count": 2},
        {"op": "field_on", "path": "revisions.title", "course_id": "x"},
    ],
)
def test_what_cannot_be_meant_is_refused(unfit):
    with pytest.raises(ValueError, match=r"all|updated_at|path"):
        ChangeRequest(**unfit)
