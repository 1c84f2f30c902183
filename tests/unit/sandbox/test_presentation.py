"""What is served of a course whose integration has fields switched off, or null for no list."""

from __future__ import annotations

import json

import pytest

from service.sandbox.catalogue import Catalogue
from service.sandbox.changes import ChangeRequest
from service.sandbox.content import parse_time
from service.sandbox.presentation import SWITCHABLE_PATHS
from service.sandbox.query import Query

NOW = 1_795_424_000_000


@pytest.fixture
def catalogue():
    """Courses that have every field somewhere, one tombstone and one that is anonymised."""
    catalogue = Catalogue("sandbox:demo", courses=30, seed=3)
    for path in ("remote_data", "revisions.remote_data", "origin_id"):
        apply(catalogue, "edit", NOW - 5000, path=path, count=4)
    apply(catalogue, "delete", NOW - 4000, count=2)
    apply(catalogue, "anonymise", NOW - 3000)
    return catalogue


def apply(catalogue, op, now=NOW, **kwargs):
    return catalogue.apply([ChangeRequest(op=op, **kwargs)], now)


def records(catalogue):
    bodies = (catalogue.record(course.id) for course in catalogue.courses())
    return {record["id"]: record for record in map(json.loads, bodies)}


def values(record, path):
    """What the record says at a path; None for one of a revision without revisions."""
    parent, _, name = path.rpartition(".")
    if not parent:
        return [record[name]]
    return [revision[name] for revision in record["revisions"] or []]


def without_times(record):
    """The record without its `changed_at` and those of its revisions."""
    revisions = record["revisions"] and [
        {**revision, "changed_at": None} for revision in record["revisions"]
    ]
    return {**record, "changed_at": None, "revisions": revisions}


def live(catalogue):
    return {course.id for course in catalogue.courses() if course.state == "live"}


def updated_at(catalogue):
    return {course.id: course.updated_at for course in catalogue.courses()}


@pytest.mark.parametrize("path", SWITCHABLE_PATHS)
def test_a_field_that_is_off_is_served_nowhere_and_comes_back_as_it_was(catalogue, path):
    before, times = records(catalogue), updated_at(catalogue)
    filled = {key for key, record in before.items() if any(values(record, path))}
    assert filled & live(catalogue)
    off = apply(catalogue, "field_off", path=path)
    shown = records(catalogue)
    assert not any(any(values(record, path)) for record in shown.values())
    assert {change.course_id for change in off} == filled & live(catalogue)
    assert {(change.op, change.paths) for change in off} == {("field_off", (path,))}
    on = apply(catalogue, "field_on", path=path)
    assert {change.course_id for change in on} == {change.course_id for change in off}
    assert {(change.op, change.paths) for change in on} == {("field_on", (path,))}
    after = records(catalogue)
    assert {key: without_times(record) for key, record in after.items()} == {
        key: without_times(record) for key, record in before.items()
    }
    moved = {key: change.at for change in on for key in [change.course_id]}
    assert updated_at(catalogue) == times | moved


def test_only_live_courses_that_a_switch_changes_are_updated(catalogue):
    apply(catalogue, "field_off", path="custom_fields")
    query = Query(page_size=250, updated_after=NOW - 1, include_deleted=True)
    seen = {json.loads(body)["id"] for body in catalogue.select(query).records}
    assert seen == {change.course_id for change in catalogue.log() if change.op == "field_off"}
    assert 0 < len(seen) < len(live(catalogue))


def test_a_lists_field_that_is_off_is_an_empty_list(catalogue):
    for path in ("integration_fields", "revisions.skill_assignments"):
        apply(catalogue, "field_off", path=path)
    for key in live(catalogue):
        record = records(catalogue)[key]
        assert record["integration_fields"] == []
        assert {str(revision["skill_assignments"]) for revision in record["revisions"]} == {"[]"}


def test_the_provider_goes_and_comes_with_its_id(catalogue):
    (renamed, *_) = apply(catalogue, "provider", NOW - 1000, path="provider.name")
    apply(catalogue, "field_off", path="provider")
    shown = records(catalogue)[renamed.course_id]
    assert (shown["provider_id"], shown["provider"]) == (None, None)
    hidden = apply(catalogue, "provider", path="provider.name", course_id=renamed.course_id)
    assert {change.paths for change in hidden} == {()}
    apply(catalogue, "field_on", path="provider")
    shown = records(catalogue)[renamed.course_id]
    assert shown["provider"]["id"] == shown["provider_id"]
    assert shown["provider"]["name"].endswith(f"({hidden[0].n})")


def test_a_field_stays_off_in_courses_that_are_made_edited_or_restored_later(catalogue):
    path = "revisions.title"
    apply(catalogue, "field_off", path=path)
    changes = [
        *apply(catalogue, "create"),
        *apply(catalogue, "edit", path=path),
        *apply(catalogue, "edit", path="revisions.status"),
        *apply(catalogue, "restore", count=2),
        *apply(catalogue, "revision_add"),
        *apply(catalogue, "delete"),
    ]
    assert not any(any(values(record, path)) for record in records(catalogue).values())
    assert [change.paths for change in changes[:5]] == [(), (), ("revisions.status",), (), ()]
    assert path not in changes[5].paths
    apply(catalogue, "field_on", path=path)
    titles = {key: values(record, path) for key, record in records(catalogue).items()}
    assert all(titles[change.course_id][-1] for change in changes)


def test_an_edit_of_a_field_that_is_off_shows_when_it_is_on_again(catalogue):
    apply(catalogue, "field_off", path="origin_id")
    (edited,) = apply(catalogue, "edit", path="origin_id")
    assert records(catalogue)[edited.course_id]["origin_id"] is None
    apply(catalogue, "field_on", path="origin_id")
    assert records(catalogue)[edited.course_id]["origin_id"] == f"origin-{edited.n}"


def test_changed_at_moves_where_an_edit_of_the_field_would_move_it(catalogue):
    def times(key):
        record = records(catalogue)[key]
        return record["changed_at"], [revision["changed_at"] for revision in record["revisions"]]

    for path, outer, inner in [
        ("custom_fields", True, False),
        ("revisions.custom_fields", False, True),
        ("provider", False, False),
        ("revisions.skill_assignments", False, False),
    ]:
        before = {key: times(key) for key in live(catalogue)}
        for change in apply(catalogue, "field_off", path=path):
            changed_at, revised_at = times(change.course_id)
            assert changed_at == (change.at if outer else before[change.course_id][0])
            assert (change.at in revised_at) is inner


def test_a_switch_may_carry_one_time_for_all_its_courses(catalogue):
    time = "2026-11-23T08:00:00.000Z"
    done = apply(catalogue, "field_off", path="revisions.description", updated_at=time)
    moved = updated_at(catalogue)
    assert {moved[change.course_id] for change in done} == {time}
    assert [parse_time(change.at) for change in done] == [NOW + n for n in range(len(done))]


def test_a_field_that_is_off_already_is_no_change_and_no_error(catalogue):
    assert apply(catalogue, "field_on", path="revisions.title") == []
    assert apply(catalogue, "field_off", path="revisions.title") != []
    assert apply(catalogue, "field_off", path="revisions.title") == []


def test_a_switch_leaves_the_courses_of_its_request_to_be_drawn(catalogue):
    done = catalogue.apply(
        [
            ChangeRequest(op="field_off", path="revisions.title"),
            ChangeRequest(op="edit", count=catalogue.live),
        ],
        NOW,
    )
    assert {change.op for change in done} == {"field_off", "edit"}


# --- null for no list ---------------------------------------------------------------------


def test_an_empty_list_is_null_where_the_integration_says_so():
    plain = Catalogue("sandbox:demo", courses=40, seed=3)
    nulls = Catalogue("sandbox:demo", courses=40, seed=3, null_lists=True)
    lists = []
    for course in plain.courses():
        usual, record = json.loads(plain.record(course.id)), json.loads(nulls.record(course.id))
        assert list(record) == list(usual)
        pairs = [(usual, record), *zip(usual["revisions"], record["revisions"], strict=True)]
        for expected, found in pairs:
            for name in ("integration_fields", "skill_assignments"):
                if name in expected:
                    assert found[name] == (expected[name] or None)
                    lists.append(found[name])
            del expected["integration_fields"], found["integration_fields"]
            expected.pop("skill_assignments", None), found.pop("skill_assignments", None)
        assert record == usual
    assert None in lists
    assert any(lists)


def test_a_list_that_is_switched_off_is_null_too_where_the_integration_says_so():
    catalogue = Catalogue("sandbox:demo", courses=20, seed=3, null_lists=True)
    apply(catalogue, "field_off", path="integration_fields")
    assert {record["integration_fields"] for record in records(catalogue).values()} == {None}
