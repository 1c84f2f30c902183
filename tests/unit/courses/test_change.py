from __future__ import annotations

import json

import msgspec
import pytest
from xxhash import xxh3_128_digest

from service.domain.courses.change import EVENT_TYPES, Verdict, judge, judge_absence
from service.domain.courses.fingerprint import NO_RAW, Fingerprint, raw_digest
from service.domain.courses.received import read_record
from service.domain.courses.record import Course
from service.domain.courses.tracked_paths import (
    CURRENT,
    OLDER,
    PATH_DIGEST_BYTES,
    REMOTE_DATA_PATHS,
    TRACKED_PATHS,
    Version,
    path_digests,
)

NOW = 1_795_424_001_123
DELETED_AT = "2026-11-20T08:00:00.000Z"
EVENT = "01krd8x3m3000026vafvwsrmbh"
COURSE = {
    "id": "c1",
    "remote_id": "32",
    "provider_id": "p1",
    "origin_id": "course-123",
    "remote_created_at": "2022-08-07T14:01:29.196Z",
    "remote_deleted_at": None,
    "changed_at": "2022-08-07T14:01:29.196Z",
    "remote_data": None,
    "custom_fields": None,
    "integration_fields": [],
    "provider": {"id": "p1", "remote_id": "provider-1", "name": "Academy"},
    "revisions": [
        {
            "id": "r1",
            "remote_id": "revision-1",
            "course_id": "c1",
            "title": "Fire safety",
            "description": None,
            "remote_url": None,
            "status": "ACTIVE",
            "remote_created_at": None,
            "remote_deleted_at": None,
            "changed_at": "2022-08-07T14:01:29.196Z",
            "remote_data": None,
            "custom_fields": None,
            "integration_fields": [],
            "skill_assignments": [],
        }
    ],
}
TOMBSTONE = {**COURSE, "remote_deleted_at": DELETED_AT}
BLANK = dict.fromkeys(COURSE) | {"id": "c1", "integration_fields": [], "revisions": []}


def record(course: dict, **fields) -> msgspec.Raw:
    return msgspec.Raw(json.dumps({**course, **fields}).encode())


def verdict_on(course: msgspec.Raw, known: Fingerprint | None, ignored=(), now=NOW):
    return judge(read_record(course, now, raw_digest(course)), known, ignored)


@pytest.fixture
def live() -> Fingerprint:
    kept = verdict_on(record(COURSE), None).fingerprint
    return msgspec.structs.replace(kept, sequence=7, event=EVENT)


@pytest.fixture
def deleted(live) -> Fingerprint:
    return verdict_on(record(TOMBSTONE), live).fingerprint


# --- the table of verdicts ---------------------------------------------------------------


def test_an_unknown_live_course_is_created():
    found = verdict_on(record(COURSE), None)

    assert (found.verdict, found.event_type) == (Verdict.CREATED, "course.created")
    assert (found.reason, found.evidence, found.changed) == (None, None, ())
    assert found.record == bytes(record(COURSE))
    kept = found.fingerprint
    assert (kept.deleted, kept.sequence, kept.event) == (False, 0, None)
    assert (kept.remote_id, kept.origin_id) == ("32", "course-123")


def test_the_tombstone_of_an_unknown_course_is_recorded_silently():
    found = verdict_on(record(TOMBSTONE), None)

    assert (found.verdict, found.event_type) == (Verdict.RECORDED, None)
    assert found.fingerprint.deleted
    assert (found.fingerprint.remote_id, found.fingerprint.origin_id) == ("32", "course-123")


def test_a_tombstone_needs_nothing_but_id_and_date():
    bare = record({"id": "c1", "remote_deleted_at": DELETED_AT})

    assert verdict_on(bare, None).verdict is Verdict.RECORDED


def test_a_tombstone_whose_names_are_broken_is_still_one(live):
    broken = record({"id": "c1", "remote_deleted_at": DELETED_AT, "remote_id": 7})

    assert verdict_on(broken, None).fingerprint.remote_id is None
    assert verdict_on(broken, live).verdict is Verdict.DELETED


def test_the_same_bytes_are_unchanged(live):
    found = verdict_on(record(COURSE), live)

    assert (found.verdict, found.event_type) == (Verdict.UNCHANGED, None)
    assert found.fingerprint is None


def test_other_bytes_without_a_tracked_change_only_refresh_the_fingerprint(live):
    other = record(COURSE, changed_at="2026-01-01T00:00:00.000Z", new_field=[1])

    found = verdict_on(other, live)

    assert (found.verdict, found.event_type, found.changed) == (Verdict.REFRESHED, None, ())
    assert found.fingerprint == msgspec.structs.replace(live, raw=raw_digest(other))


def test_a_tracked_change_is_an_update_that_names_it(live):
    found = verdict_on(record(COURSE, provider_id="p2", custom_fields={"a": 1}), live)

    assert (found.verdict, found.event_type) == (Verdict.UPDATED, "course.updated")
    assert found.changed == ("custom_fields", "provider")
    assert (found.fingerprint.sequence, found.fingerprint.event) == (7, EVENT)


def test_a_changed_name_is_kept(live):
    found = verdict_on(record(COURSE, remote_id="33", origin_id=None), live)

    assert found.changed == ("remote_id", "origin_id")
    assert (found.fingerprint.remote_id, found.fingerprint.origin_id) == ("33", None)


def test_a_tombstone_of_a_live_course_is_a_deletion(live):
    found = verdict_on(record(TOMBSTONE), live)

    assert (found.verdict, found.event_type) == (Verdict.DELETED, "course.deleted")
    assert (found.evidence, found.reason) == ("tombstone", None)
    kept = found.fingerprint
    assert (kept.deleted, kept.sequence, kept.event) == (True, 7, EVENT)
    assert (kept.remote_id, kept.origin_id) == ("32", "course-123")
    assert not any(kept.paths), "of what is gone no digests are kept"


def test_the_tombstone_of_an_anonymised_course_that_was_live_is_a_deletion(live):
    found = verdict_on(record(BLANK, remote_deleted_at=DELETED_AT), live)

    assert found.verdict is Verdict.DELETED
    assert found.fingerprint.remote_id == "32", "what the course was called is still known"


def test_the_same_tombstone_again_is_unchanged(deleted):
    assert verdict_on(record(TOMBSTONE), deleted).verdict is Verdict.UNCHANGED


def test_another_tombstone_of_a_deleted_course_is_recorded_silently(deleted):
    other = record(TOMBSTONE, changed_at="2026-11-21T08:00:00.000Z")

    found = verdict_on(other, deleted)

    assert (found.verdict, found.event_type) == (Verdict.RECORDED, None)
    assert found.fingerprint == msgspec.structs.replace(deleted, raw=raw_digest(other))


@pytest.mark.parametrize(
    "anonymised",
    [
        record(BLANK, remote_deleted_at=DELETED_AT),
        record(BLANK),
        record({"id": "c1"}),
        record(BLANK, changed_at=DELETED_AT, revisions=None, integration_fields=None),
        record(BLANK, remote_id="", revisions=[]),
        record(
            BLANK,
            revisions=[
                dict.fromkeys(COURSE["revisions"][0])
                | {"id": "r1", "course_id": "c1", "remote_deleted_at": DELETED_AT}
            ],
        ),
    ],
    ids=["with date", "without date", "id only", "null lists", "empty name", "blank revisions"],
)
def test_a_deleted_course_stays_deleted_when_it_is_anonymised(anonymised, deleted):
    found = verdict_on(anonymised, deleted)

    assert (found.verdict, found.event_type) == (Verdict.RECORDED, None)
    assert found.fingerprint == msgspec.structs.replace(deleted, raw=raw_digest(anonymised))


def test_a_live_course_that_loses_its_content_without_a_tombstone_is_no_deletion(live):
    assert verdict_on(record(BLANK), live).verdict is Verdict.QUARANTINED


def test_a_deleted_course_that_is_live_again_is_restored(deleted):
    found = verdict_on(record(COURSE), deleted)

    assert (found.verdict, found.event_type) == (Verdict.RESTORED, "course.created")
    assert (found.reason, found.changed) == ("restored", ())
    kept = found.fingerprint
    assert (kept.deleted, kept.sequence, kept.event) == (False, 7, EVENT)


def test_a_restored_course_with_little_content_is_still_restored(deleted):
    little = record(BLANK, remote_id="32")

    assert verdict_on(little, deleted).verdict is Verdict.RESTORED


def test_a_course_whose_absence_is_verified_is_deleted(live):
    found = judge_absence("c1", live)

    assert (found.verdict, found.event_type) == (Verdict.DELETED, "course.deleted")
    assert (found.evidence, found.record) == ("absence", None)
    assert found.fingerprint == msgspec.structs.replace(
        live, deleted=True, raw=NO_RAW, paths=bytes(len(live.paths))
    )


def test_an_absent_course_that_returns_with_the_same_bytes_is_restored(live):
    gone = judge_absence("c1", live).fingerprint

    assert verdict_on(record(COURSE), gone).verdict is Verdict.RESTORED


def test_the_tombstone_after_a_verified_absence_is_recorded_silently(live):
    gone = judge_absence("c1", live).fingerprint

    assert verdict_on(record(TOMBSTONE), gone).verdict is Verdict.RECORDED


def test_only_changes_that_a_subscriber_cares_about_are_events():
    assert {verdict for verdict in Verdict if verdict not in EVENT_TYPES} == {
        Verdict.UNCHANGED,
        Verdict.REFRESHED,
        Verdict.RECORDED,
        Verdict.HELD,
        Verdict.QUARANTINED,
    }


# --- records that do not decode ----------------------------------------------------------

BROKEN = {
    "type": record(COURSE, revisions=7),
    "null in a list": record(COURSE, revisions=[None]),
    "missing": record({"id": "c1", "remote_id": "32"}),
    "nested": record(COURSE, revisions=[{"id": "r1"}]),
    "tombstone date": record(COURSE, remote_deleted_at=7),
    "number": msgspec.Raw(bytes(record(COURSE, custom_fields="N")).replace(b'"N"', b"1e999")),
    "utf-8 in a name": msgspec.Raw(bytes(record(COURSE)).replace(b'"32"', b'"\xff"')),
    "utf-8 in a field nobody reads": msgspec.Raw(
        bytes(record(COURSE, new_field="N")).replace(b'"N"', b'"\xff"')
    ),
    "depth": msgspec.Raw(
        bytes(record(COURSE, custom_fields="N")).replace(b'"N"', b"[" * 9999 + b"]" * 9999)
    ),
    "blank but for a number": msgspec.Raw(
        bytes(record(BLANK, custom_fields="N")).replace(b'"N"', b"9" * 5000)
    ),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_record_is_quarantined_with_its_reason(broken, live, deleted):
    for known in (None, live, deleted):
        found = verdict_on(broken, known)

        assert (found.verdict, found.event_type) == (Verdict.QUARANTINED, None)
        assert found.problem
        assert found.fingerprint is None
        assert found.record == bytes(broken)


def test_the_reason_names_the_place():
    found = verdict_on(record(COURSE, revisions=[{**COURSE["revisions"][0], "title": 7}]), None)

    assert found.problem == "Expected `str | null`, got `int` - at `$.revisions[0].title`"


@pytest.mark.parametrize("number", [b"1e999", b"-1E+999", b"9" * 5000, b"9" * 250 + b"e99"])
def test_a_number_that_no_receiver_can_read_is_quarantined_wherever_it_is(number, live):
    for field in ("custom_fields", "new_field"):
        broken = msgspec.Raw(bytes(record(COURSE, **{field: "N"})).replace(b'"N"', number))

        assert verdict_on(broken, live).verdict is Verdict.QUARANTINED
        assert verdict_on(broken, None).verdict is Verdict.QUARANTINED


def test_numbers_and_digits_of_any_other_size_pass(live):
    odd = record(COURSE, new_field=[1e-300, 10**100, "9" * 5000, "1e999", 1.5e300])

    assert verdict_on(odd, live).verdict is Verdict.REFRESHED


@pytest.mark.parametrize(
    "token",
    [
        b"NaN",
        b"Infinity",
        b"tru",
        b'"\\x41"',
        b'"a\tb"',
        b'"\\ud83d"',
        b'"\\ude00 x"',
        b"[1,]",
        b"'a'",
        b"/**/1",
        b'"\xed\xa0\xbd"',
    ],
)
@pytest.mark.parametrize("field", ["custom_fields", "new_field", "changed_at"])
def test_no_body_that_is_no_json_is_ever_sent(token, field, live, deleted):
    broken = msgspec.Raw(bytes(record(COURSE, **{field: "N"})).replace(b'"N"', token))

    for known in (None, live, deleted):
        found = verdict_on(broken, known)
        assert (found.verdict, found.event_type) == (Verdict.QUARANTINED, None)
        assert found.problem


def test_a_record_that_is_nested_too_deep_stops_nothing_even_if_nothing_is_left_of_it():
    for depth in range(100, 1_200, 50):
        nested = b"[" * depth + b"]" * depth
        left = b'{"id":"c1","remote_id":null,"revisions":null,"x":%s}' % nested
        assert verdict_on(msgspec.Raw(left), None).verdict in (
            Verdict.RECORDED,
            Verdict.QUARANTINED,
        )


# --- marks of deletion -------------------------------------------------------------------

NONSENSE = ["", "0000-00-00 00:00:00", "0001-01-01T00:00:00Z", "false", "0", "null", "1970-01-01"]


@pytest.mark.parametrize("mark", [*NONSENSE, 0, 1, False, True, {}, [], [DELETED_AT], 1.5])
def test_a_mark_that_is_no_date_deletes_nothing_and_is_named(mark, live, deleted):
    marked = record(COURSE, remote_deleted_at=mark)

    for known in (None, live, deleted):
        found = verdict_on(marked, known)
        assert (found.verdict, found.event_type) == (Verdict.QUARANTINED, None)
        assert "remote_deleted_at" in found.problem


def test_the_reason_quotes_no_more_than_a_little_of_a_mark():
    found = verdict_on(record(COURSE, remote_deleted_at="\x00ü" * 5_000), None)

    assert len(found.problem) < 120
    assert found.problem.isascii()
    assert found.problem.isprintable()


@pytest.mark.parametrize("mark", NONSENSE)
def test_what_is_left_of_a_deleted_course_stays_deleted_whatever_its_mark(mark, deleted):
    assert verdict_on(record(BLANK, remote_deleted_at=mark), deleted).verdict is Verdict.RECORDED


def test_a_date_to_come_is_no_deletion_until_it_has_passed(live, deleted):
    due = "2026-11-24T00:00:00Z"
    marked = record(COURSE, remote_deleted_at=due)
    later = NOW + 86_400_000

    assert verdict_on(marked, None).verdict is Verdict.CREATED
    assert verdict_on(marked, deleted).verdict is Verdict.RESTORED
    found = verdict_on(marked, live)
    assert (found.verdict, found.changed) == (Verdict.REFRESHED, ())
    assert found.fingerprint.raw == NO_RAW, "or the same bytes would never be looked at again"
    again = verdict_on(marked, found.fingerprint)
    assert (again.verdict, again.fingerprint) == (Verdict.REFRESHED, found.fingerprint)

    gone = verdict_on(marked, found.fingerprint, now=later)
    assert (gone.verdict, gone.evidence) == (Verdict.DELETED, "tombstone")
    assert verdict_on(marked, gone.fingerprint, now=later).verdict is Verdict.UNCHANGED


def test_a_change_beside_a_date_to_come_is_reported(live):
    marked = record(COURSE, remote_deleted_at="2026-11-24T00:00:00Z", origin_id="other")

    assert verdict_on(marked, live).changed == ("origin_id",)


def test_a_date_that_stands_for_never_costs_no_second_look(live):
    marked = record(COURSE, remote_deleted_at="9999-12-31T23:59:59Z")

    found = verdict_on(marked, live)
    assert found.verdict is Verdict.REFRESHED
    assert verdict_on(marked, found.fingerprint).verdict is Verdict.UNCHANGED


# --- lists that are null -----------------------------------------------------------------

NULLS = {"revisions": None, "integration_fields": None}


def test_a_course_whose_lists_are_null_is_one_like_any_other(live):
    assert verdict_on(record(COURSE, **NULLS), None).verdict is Verdict.CREATED
    assert verdict_on(record(COURSE, integration_fields=None), live).verdict is Verdict.REFRESHED

    emptied = verdict_on(record(COURSE, **NULLS), live)
    assert emptied.verdict is Verdict.UPDATED
    assert emptied.changed == (
        "revisions",
        "revisions.remote_id",
        "revisions.title",
        "revisions.status",
    )
    again = verdict_on(record(COURSE, revisions=[], integration_fields=[]), emptied.fingerprint)
    assert again.verdict is Verdict.REFRESHED


# --- fingerprints of an older version ----------------------------------------------------


@pytest.fixture
def older(monkeypatch) -> Version:
    """It saw neither the provider nor titles, took custom fields otherwise, and tracked how many
    revisions there are."""
    version = Version(
        b"0",
        {
            "revision_count": lambda course: len(course.revisions or ()),
            **{
                path: extract
                for path, extract in CURRENT.tracked.items()
                if path not in {"provider", "revisions.title"}
            },
            "custom_fields": lambda course: ["then", course.custom_fields],
        },
    )
    monkeypatch.setitem(OLDER, version.tag, version)
    return version


@pytest.fixture
def live_then(older, live) -> Fingerprint:
    """The live course as a release of the older version left it."""
    return msgspec.structs.replace(
        live,
        version=older.tag,
        raw=xxh3_128_digest(record(COURSE), older.seed),
        paths=path_digests(msgspec.json.decode(record(COURSE), type=Course), older),
    )


def test_an_older_fingerprint_is_replaced_silently(live_then, live):
    found = verdict_on(record(COURSE), live_then)

    assert (found.verdict, found.event_type, found.changed) == (Verdict.REFRESHED, None, ())
    assert found.fingerprint == live
    assert verdict_on(record(COURSE), found.fingerprint).verdict is Verdict.UNCHANGED


def test_a_change_found_while_the_version_changes_is_reported_with_its_paths(live_then):
    other = record(COURSE, custom_fields={"a": 1}, provider_id="p2", revisions=[])

    found = verdict_on(other, live_then, {"revisions.status"})

    assert found.verdict is Verdict.UPDATED
    assert found.changed == (
        "revision_count",
        "custom_fields",
        "revisions",
        "revisions.remote_id",
    ), "what only the new version tracks is taken as it is"
    kept = found.fingerprint
    assert (kept.version, kept.sequence, kept.event) == (CURRENT.tag, 7, EVENT)
    assert kept.paths == verdict_on(other, None).fingerprint.paths


def test_what_only_the_new_version_tracks_is_reported_from_then_on(live_then):
    kept = verdict_on(record(COURSE, provider_id="p2"), live_then)
    assert kept.verdict is Verdict.REFRESHED

    assert verdict_on(record(COURSE, provider_id="p3"), kept.fingerprint).changed == ("provider",)


@pytest.mark.parametrize("gone", [TOMBSTONE, BLANK | {"remote_deleted_at": DELETED_AT}, None])
def test_a_deletion_needs_no_content_to_leave_the_older_version(gone, live_then):
    found = judge_absence("c1", live_then) if gone is None else verdict_on(record(gone), live_then)

    assert (found.verdict, found.fingerprint.version) == (Verdict.DELETED, CURRENT.tag)
    assert len(found.fingerprint.paths) == PATH_DIGEST_BYTES * len(TRACKED_PATHS)
    assert (found.fingerprint.sequence, found.fingerprint.remote_id) == (7, "32")


@pytest.mark.parametrize("anonymised", [TOMBSTONE, BLANK])
def test_a_course_deleted_under_the_older_version_stays_deleted_under_the_new(
    anonymised, live_then
):
    gone = msgspec.structs.replace(live_then, deleted=True)

    found = verdict_on(record(anonymised), gone)

    assert (found.verdict, found.fingerprint.version) == (Verdict.RECORDED, CURRENT.tag)
    assert verdict_on(record(COURSE), gone).verdict is Verdict.RESTORED


def test_a_broken_record_leaves_an_older_fingerprint_as_it_is(live_then):
    found = verdict_on(record(COURSE, revisions=7), live_then)

    assert (found.verdict, found.fingerprint) == (Verdict.QUARANTINED, None)


# --- what counts for nothing -------------------------------------------------------------


def test_an_ignored_path_alone_is_no_update(live):
    found = verdict_on(record(COURSE, provider=None, provider_id=None), live, {"provider"})

    assert (found.verdict, found.changed) == (Verdict.REFRESHED, ())


def test_an_ignored_path_is_left_out_of_what_changed(live):
    other = record(COURSE, provider=None, custom_fields={"a": 1})

    assert verdict_on(other, live, {"provider"}).changed == ("custom_fields",)


def test_a_path_that_is_no_longer_ignored_reports_nothing_old(live):
    other = record(COURSE, custom_fields={"a": 1})
    kept = verdict_on(other, live, {"custom_fields"}).fingerprint

    assert verdict_on(record(COURSE, custom_fields={"a": 1}, x=1), kept).changed == ()


def test_ignoring_a_list_does_not_ignore_what_its_items_say(live):
    renamed = [{**COURSE["revisions"][0], "title": "Other"}]

    assert verdict_on(record(COURSE, revisions=renamed), live, {"revisions"}).changed == (
        "revisions.title",
    )


def test_remote_data_counts_only_where_it_is_tracked(live):
    """An integration that does not track remote data ignores these two paths."""
    other = record(
        COURSE,
        remote_data={"/courses": {}},
        revisions=[{**COURSE["revisions"][0], "remote_data": {"a": 1}}],
    )

    assert verdict_on(other, live, REMOTE_DATA_PATHS).verdict is Verdict.REFRESHED
    assert verdict_on(other, live).changed == ("remote_data", "revisions.remote_data")
