"""How sandbox courses come to be and change, and what `updated_after` sees of it."""

from __future__ import annotations

import json
import re
from itertools import pairwise

import pytest

from service.sandbox.catalogue import Catalogue
from service.sandbox.changes import ChangeRequest, ChangesRefusedError, State
from service.sandbox.content import format_time, parse_time
from service.sandbox.edits import EDITABLE_PATHS
from service.sandbox.query import Query

NOW = 1_795_424_000_000
UPSTREAM = "workday:HWUTwvyx2wLoSUHphiWVrp28"


@pytest.fixture
def catalogue():
    return Catalogue(UPSTREAM, courses=40, seed=3)


def change(catalogue, op, **kwargs):
    (done,) = catalogue.apply([ChangeRequest(op=op, **kwargs)], NOW)
    return done


def record(catalogue, course_id):
    return json.loads(catalogue.record(course_id))


def found(catalogue, **filters):
    selection = catalogue.select(Query(page_size=250, **filters))
    return {json.loads(body)["id"] for body in selection.records}


def seen_since_the_change(catalogue):
    return found(catalogue, updated_after=NOW - 1, include_deleted=True)


def states(catalogue):
    return {course.id: course.state for course in catalogue.courses()}


# --- content ------------------------------------------------------------------------------


def bodies(catalogue):
    return [catalogue.record(course.id) for course in catalogue.courses()]


def test_the_same_seed_gives_the_same_courses_and_the_same_changes():
    requests = [
        ChangeRequest(op="edit", count=5),
        ChangeRequest(op="delete", count=3),
        ChangeRequest(op="create"),
        ChangeRequest(op="skill", count=2),
        ChangeRequest(op="restore"),
    ]

    def history():
        catalogue = Catalogue(UPSTREAM, courses=60, seed=3)
        catalogue.apply(requests[:4], NOW)
        catalogue.apply(requests[4:], NOW)
        return bodies(catalogue), catalogue.log()

    assert history() == history()


def test_seed_and_integration_each_give_other_courses():
    ids = [
        {course.id for course in Catalogue(upstream_id, courses=20, seed=seed).courses()}
        for upstream_id, seed in [(UPSTREAM, 3), (UPSTREAM, 4), ("moodle:x", 3)]
    ]
    assert len(set.union(*ids)) == 60


def test_a_course_does_not_depend_on_how_many_there_are(catalogue):
    assert bodies(Catalogue(UPSTREAM, courses=10, seed=3)) == bodies(catalogue)[:10]


def test_content_is_as_varied_as_that_of_a_real_system():
    records = [json.loads(body) for body in bodies(Catalogue(UPSTREAM, courses=1000, seed=3))]
    assert len({record["id"] for record in records}) == 1000
    assert len({record["remote_id"] for record in records}) == 1000
    assert all(re.fullmatch(r"[1-9A-Za-z]{24}", record["id"]) for record in records)
    assert {len(record["revisions"]) for record in records} == {1, 2, 3}
    revisions = [revision for record in records for revision in record["revisions"]]
    assert len({revision["id"] for revision in revisions}) == len(revisions)
    assert {revision["status"] for revision in revisions} == {"ACTIVE", "INACTIVE", None}
    sizes = [
        len(revision["description"].encode()) for revision in revisions if revision["description"]
    ]
    assert min(sizes) < 300
    assert max(sizes) > 4000
    providers = [record["provider_id"] for record in records]
    assert None in providers
    assert 5 < len(set(providers)) < 50
    assert any(record["custom_fields"] for record in records)
    assert any(record["integration_fields"] for record in records)
    skills = {
        link["skill"]["id"] for revision in revisions for link in revision["skill_assignments"]
    }
    assert 20 < len(skills) < 100


def test_ten_thousand_courses_are_polled_once_each():
    catalogue = Catalogue(UPSTREAM, courses=10_000, seed=3)
    seen, after = [], -1
    while True:
        selection = catalogue.select(Query(page_size=250), after)
        seen += selection.records
        if selection.next_after is None:
            break
        after = selection.next_after
    assert seen == bodies(catalogue)


def test_times_are_written_and_read_to_the_millisecond():
    assert format_time(NOW + 7) == "2026-11-23T08:53:20.007Z"
    assert parse_time("2026-11-23T08:53:20.007Z") == NOW + 7


# --- what updated_after sees --------------------------------------------------------------


def test_nothing_is_updated_before_anything_changed(catalogue):
    assert seen_since_the_change(catalogue) == set()


@pytest.mark.parametrize("path", EDITABLE_PATHS)
def test_an_edit_is_seen_and_moves_changed_at_only_where_it_was_made(catalogue, path):
    course_id = catalogue.courses()[7].id
    before = record(catalogue, course_id)
    done = change(catalogue, "edit", course_id=course_id, path=path)
    after = record(catalogue, course_id)
    assert seen_since_the_change(catalogue) == {course_id}
    assert done.paths == (() if path.endswith("changed_at") else (path,))
    parent, _, name = path.rpartition(".")
    outer, inner = (before, after), (before["revisions"][-1], after["revisions"][-1])
    edited, other = (inner, outer) if parent else (outer, inner)
    assert edited[0][name] != edited[1][name]
    assert edited[1]["changed_at"] == done.at
    assert other[0]["changed_at"] == other[1]["changed_at"]
    untouched = edited[0].keys() - {name, "changed_at", "revisions"}
    assert {key: edited[0][key] for key in untouched} == {key: edited[1][key] for key in untouched}


@pytest.mark.parametrize(("op", "more"), [("revision_add", 1), ("revision_remove", -1)])
def test_a_revision_that_comes_or_goes_is_seen_though_changed_at_stays(catalogue, op, more):
    before = {course.id: record(catalogue, course.id) for course in catalogue.courses()}
    done = change(catalogue, op)
    after = record(catalogue, done.course_id)
    assert len(after["revisions"]) == len(before[done.course_id]["revisions"]) + more
    assert after["changed_at"] == before[done.course_id]["changed_at"]
    assert seen_since_the_change(catalogue) == {done.course_id}
    assert {"revisions", "revisions.title"} <= set(done.paths)


def test_another_provider_is_not_seen(catalogue):
    before = {course.id: record(catalogue, course.id) for course in catalogue.courses()}
    done = change(catalogue, "provider")
    after = record(catalogue, done.course_id)
    assert after["provider"] != before[done.course_id]["provider"]
    assert after["provider"]["id"] == after["provider_id"]
    assert after | {"provider": 0, "provider_id": 0} == before[done.course_id] | {
        "provider": 0,
        "provider_id": 0,
    }
    assert done.paths == ("provider",)
    assert seen_since_the_change(catalogue) == set()


def test_a_renamed_provider_is_not_seen_and_reaches_every_course_that_shares_it(catalogue):
    before = {course.id: record(catalogue, course.id) for course in catalogue.courses()}
    course_id = next(key for key, value in before.items() if value["provider"])
    provider_id = before[course_id]["provider_id"]
    sharing = {key for key, value in before.items() if value["provider_id"] == provider_id}
    done = catalogue.apply(
        [ChangeRequest(op="provider", course_id=course_id, path="provider.name")], NOW
    )
    assert {entry.course_id for entry in done} == sharing
    assert len(sharing) > 1
    names = {record(catalogue, key)["provider"]["name"] for key in sharing}
    assert len(names) == 1
    assert names != {before[course_id]["provider"]["name"]}
    assert seen_since_the_change(catalogue) == set()


def test_a_change_of_skills_is_not_seen(catalogue):
    for _ in range(30):
        before = {course.id: record(catalogue, course.id) for course in catalogue.courses()}
        done = change(catalogue, "skill")
        after = record(catalogue, done.course_id)
        old, new = before[done.course_id]["revisions"].pop(), after["revisions"].pop()
        assert old.pop("skill_assignments") != new.pop("skill_assignments")
        assert old == new
        assert after == before[done.course_id]
        assert done.paths == ("revisions.skill_assignments",)
    assert seen_since_the_change(catalogue) == set()


def test_an_update_is_not_after_its_own_time(catalogue):
    done = change(catalogue, "edit")
    at = parse_time(done.at)
    assert found(catalogue, updated_after=at - 1) == {done.course_id}
    assert found(catalogue, updated_after=at) == set()


# --- coming and going ---------------------------------------------------------------------


def test_a_deleted_course_is_a_tombstone_that_only_include_deleted_shows(catalogue):
    done = change(catalogue, "delete")
    after = record(catalogue, done.course_id)
    assert after["remote_deleted_at"] == after["changed_at"] == done.at
    assert after["revisions"]
    assert done.course_id not in found(catalogue)
    assert done.course_id not in found(catalogue, updated_after=NOW - 1)
    assert seen_since_the_change(catalogue) == {done.course_id}


def test_a_vanished_course_is_found_by_nothing(catalogue):
    remote_ids = {course.id: course.remote_id for course in catalogue.courses()}
    done = change(catalogue, "vanish")
    assert catalogue.record(done.course_id) is None
    assert len(found(catalogue, include_deleted=True)) == 39
    assert found(catalogue, include_deleted=True, ids=frozenset({done.course_id})) == set()
    remote_id = frozenset({remote_ids[done.course_id]})
    assert found(catalogue, include_deleted=True, remote_ids=remote_id) == set()


@pytest.mark.parametrize("keep", [True, False])
def test_an_anonymised_course_keeps_its_id_and_if_asked_the_date(catalogue, keep):
    deleted = change(catalogue, "delete")
    done = change(catalogue, "anonymise", keep_deleted_at=keep)
    assert done.course_id == deleted.course_id
    after = record(catalogue, done.course_id)
    assert after.pop("id") == done.course_id
    assert after.pop("remote_deleted_at") == (deleted.at if keep else None)
    assert "remote_id" in after
    assert set(after.values()) == {None}
    assert done.course_id not in found(catalogue)
    assert done.course_id in found(catalogue, include_deleted=True)
    assert seen_since_the_change(catalogue) == {done.course_id}


def test_without_a_tombstone_a_live_course_is_anonymised(catalogue):
    done = change(catalogue, "anonymise")
    assert record(catalogue, done.course_id)["remote_deleted_at"] == done.at
    assert states(catalogue)[done.course_id] is State.ANONYMISED


@pytest.mark.parametrize("op", ["delete", "vanish", "anonymise"])
def test_a_course_comes_back_as_it_was_with_the_same_ids(catalogue, op):
    before = {course.id: record(catalogue, course.id) for course in catalogue.courses()}
    gone = change(catalogue, op)
    back = change(catalogue, "restore")
    assert back.course_id == gone.course_id
    after = record(catalogue, back.course_id)
    assert after == before[back.course_id] | {"changed_at": back.at}
    assert found(catalogue, updated_after=NOW - 1) == {back.course_id}
    remote_id = frozenset({after["remote_id"]})
    assert found(catalogue, remote_ids=remote_id) == {back.course_id}


def test_a_course_that_moved_is_found_under_its_new_remote_id_only(catalogue):
    before = catalogue.courses()[5]
    change(catalogue, "edit", course_id=before.id, path="remote_id")
    after = catalogue.courses()[5]
    assert found(catalogue, remote_ids=frozenset({before.remote_id})) == set()
    assert found(catalogue, remote_ids=frozenset({after.remote_id})) == {before.id}


def test_a_new_course_comes_last_and_is_seen(catalogue):
    done = change(catalogue, "create")
    assert catalogue.courses()[-1].id == done.course_id
    assert record(catalogue, done.course_id)["remote_created_at"] == done.at
    assert seen_since_the_change(catalogue) == {done.course_id}
    assert (catalogue.size, catalogue.live) == (41, 41)


# --- requests and their log ---------------------------------------------------------------


def test_courses_drawn_in_one_request_are_distinct_and_none_that_it_names(catalogue):
    named = catalogue.courses()[0].id
    requests = [
        ChangeRequest(op="edit", count=10),
        ChangeRequest(op="delete", course_id=named),
        ChangeRequest(op="provider", count=9),
        ChangeRequest(op="vanish", count=10),
        ChangeRequest(op="skill", count=10),
    ]
    done = catalogue.apply(requests, NOW)
    assert len(done) == len({entry.course_id for entry in done}) == 40


def test_a_course_made_in_a_request_is_not_drawn_in_it(catalogue):
    requests = [ChangeRequest(op="create", count=40), ChangeRequest(op="edit", count=40)]
    assert len({entry.course_id for entry in catalogue.apply(requests, NOW)}) == 80


def test_a_provider_to_rename_is_drawn_where_there_is_one():
    for seed in range(30):
        catalogue = Catalogue(UPSTREAM, courses=40, seed=seed)
        assert catalogue.apply([ChangeRequest(op="provider", path="provider.name")], NOW)


def test_changes_are_numbered_without_gaps_and_their_times_rise(catalogue):
    for _ in range(3):
        catalogue.apply([ChangeRequest(op="edit", count=20)], NOW)
    log = catalogue.log()
    assert [entry.n for entry in log] == list(range(1, 61))
    assert all(earlier.at < later.at for earlier, later in pairwise(log))
    assert catalogue.log(after=57) == log[57:]
    assert catalogue.log(after=60) == []


def test_a_clock_that_goes_back_does_not_turn_the_times_back(catalogue):
    first, second = (catalogue.apply([ChangeRequest(op="edit")], NOW - step) for step in (0, 999))
    assert second[0].at > first[0].at


def test_a_change_that_cannot_be_made_stops_the_request_after_those_before_it(catalogue):
    with pytest.raises(ChangesRefusedError) as refused:
        catalogue.apply([ChangeRequest(op="edit", count=2), ChangeRequest(op="restore")], NOW)
    assert refused.value.applied == catalogue.log()
    assert len(catalogue.log()) == 2


@pytest.mark.parametrize("op", ["edit", "delete", "provider", "skill", "revision_add"])
def test_a_course_that_is_gone_cannot_be_changed(catalogue, op):
    gone = change(catalogue, "delete")
    with pytest.raises(ChangesRefusedError, match="is deleted"):
        change(catalogue, op, course_id=gone.course_id)


def test_the_last_revision_stays(catalogue):
    course_id = next(
        course.id
        for course in catalogue.courses()
        if len(record(catalogue, course.id)["revisions"]) == 1
    )
    with pytest.raises(ChangesRefusedError, match="no revision to spare"):
        change(catalogue, "revision_remove", course_id=course_id)


@pytest.mark.parametrize(
    "unfit",
    [
        {"op": "create", "course_id": "x"},
        {"op": "edit", "course_id": "x", "count": 2},
        {"op": "edit", "path": "provider"},
        {"op": "delete", "path": "custom_fields"},
    ],
)
def test_a_request_that_no_course_could_satisfy_is_refused(unfit):
    with pytest.raises(ValueError, match=r"course_id|path"):
        ChangeRequest(**unfit)
