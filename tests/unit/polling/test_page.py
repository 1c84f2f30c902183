from __future__ import annotations

import json

import msgspec
import pytest
from xxhash import xxh3_128_digest

from service.domain.courses.change import Verdict, judge
from service.domain.courses.fingerprint import raw_digest, unpack
from service.domain.courses.received import identify_records, read_record, unread
from service.domain.courses.record import Course
from service.domain.courses.tracked_paths import OLDER, Version, path_digests
from service.domain.errors import FingerprintVersionError
from service.domain.polling.page import judge_page
from service.domain.polling.seen_courses import SeenCourses, seen_digests

NOW = 1_795_424_001_123
DELETED_AT = "2026-11-20T08:00:00.000Z"
COURSE = {
    "remote_id": "32",
    "provider_id": None,
    "origin_id": None,
    "remote_created_at": None,
    "remote_deleted_at": None,
    "provider": None,
    "revisions": [],
}


def record(course_id: object, **fields) -> msgspec.Raw:
    return msgspec.Raw(json.dumps({"id": course_id, **COURSE, **fields}).encode())


# --- records of a page -------------------------------------------------------------------


def test_records_are_seen_with_their_id_life_and_digest():
    live, dead = record("a"), record("b", remote_deleted_at=DELETED_AT)

    records_seen, nameless = identify_records([live, dead], NOW)

    assert [(one.course_id, one.live, one.digest) for one in records_seen] == [
        ("a", True, raw_digest(live)),
        ("b", False, raw_digest(dead)),
    ]
    assert nameless == 0


def test_a_record_that_comes_twice_on_a_page_counts_once_as_it_was_last():
    last = record("a", remote_deleted_at=DELETED_AT)

    records_seen, _ = identify_records([record("a"), record("b"), last], NOW)

    assert [(one.course_id, one.live) for one in records_seen] == [("a", False), ("b", True)]
    assert records_seen[0].record is last


@pytest.mark.parametrize(
    "nameless",
    [
        record(""),
        record(7),
        record(None),
        msgspec.Raw(b"{}"),
        msgspec.Raw(b"null"),
        msgspec.Raw(b'["a"]'),
        msgspec.Raw(b'{"id":"\xff"}'),
    ],
)
def test_a_record_without_an_id_can_only_be_counted(nameless):
    records_seen, count = identify_records([record("a"), nameless], NOW)

    assert [one.course_id for one in records_seen] == ["a"]
    assert count == 1


@pytest.mark.parametrize("deleted_at", [0, False, {}, [DELETED_AT]])
def test_a_record_whose_tombstone_cannot_be_read_was_still_seen(deleted_at):
    """Otherwise its course would be taken for absent, and reported as deleted."""
    records_seen, nameless = identify_records([record("a", remote_deleted_at=deleted_at)], NOW)

    assert [(one.course_id, one.live) for one in records_seen] == [("a", False)]
    assert nameless == 0
    (judged,), _ = judge_page(records_seen, [None], ())
    assert judged.verdict is Verdict.QUARANTINED


@pytest.mark.parametrize("mark", ["", "false", "0001-01-01T00:00:00Z", "1970-01-01", "x"])
def test_a_record_whose_mark_makes_no_sense_was_seen_and_shows_nothing_live(mark):
    records_seen, nameless = identify_records([record("a", remote_deleted_at=mark)], NOW)

    assert [(one.course_id, one.live) for one in records_seen] == [("a", False)]
    assert nameless == 0
    (judged,), _ = judge_page(records_seen, [packed(record("a"), "a")], ())
    assert judged.verdict is Verdict.QUARANTINED


@pytest.mark.parametrize("mark", ["2026-12-24T00:00:00Z", "9999-12-31"])
def test_a_record_whose_deletion_is_to_come_shows_its_course_live(mark):
    records_seen, _ = identify_records([record("a", remote_deleted_at=mark)], NOW)

    assert [one.live for one in records_seen] == [True]


@pytest.mark.parametrize(
    "broken",
    [
        b'{"id":"a","x":NaN}',
        b'{"x":"\\x41","id":"a"}',
        b'{"x":[{"id":"other"}],"id":"\\u0061","y":"\t"}',
        b'{"id":"a","x":"\\ud83d"}',
        b'{"id":"a","x":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        b'{"\\ud83d":1,"id":"a"}',
        b'{"id":"a",}',
    ],
)
def test_a_broken_record_is_seen_by_the_id_that_can_be_read_in_it(broken):
    records_seen, nameless = identify_records([msgspec.Raw(broken)], NOW)

    assert [(one.course_id, one.live, one.broken) for one in records_seen] == [("a", False, True)]
    assert nameless == 0
    (judged,), _ = judge_page(records_seen, [packed(record("a"), "a")], ())
    assert judged.verdict is Verdict.QUARANTINED
    assert judged.problem


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"NaN",
        b'{"id":"\\x41"}',
        b'{"id":"\\ud83d"}',
        b'{"id":NaN}',
        b'{"id":"a","id":"b","x":NaN}',
        b'{"x":{"id":"a"},"y":NaN}',
        b'{"id":7,"x":NaN}',
    ],
)
def test_a_broken_record_whose_id_cannot_be_told_is_only_counted(broken):
    assert identify_records([msgspec.Raw(broken)], NOW) == ([], 1)


def test_a_broken_record_that_shares_its_id_is_not_forgotten():
    broken = msgspec.Raw(b'{"id":"a","x":NaN}')

    records_seen, nameless = identify_records([broken, record("a")], NOW)

    assert [(one.course_id, one.broken) for one in records_seen] == [("a", False)]
    assert nameless == 1


def test_what_a_broken_record_may_have_swallowed_is_told_by_its_text():
    swallowing = msgspec.Raw(
        b'{"id":"a","x":"12" wide"},{"id":"b\\/c\\u00e9\\ud83d\\ude00\xff","x":"7" wide"}'
    )

    records_seen, _ = identify_records([swallowing, record("z")], NOW)

    assert [one.course_id for one in records_seen] == ["a", "z"]
    assert "b/cé😀" in unread(records_seen)
    assert "z" not in unread(records_seen)


# --- judging a page ----------------------------------------------------------------------


def packed(course: msgspec.Raw, course_id: str) -> bytes:
    return judge(read_record(course, NOW, raw_digest(course)), None, ()).fingerprint.pack()


def test_a_page_is_judged_record_by_record():
    old = [record(course_id) for course_id in "abcd"]
    stored = [packed(course, course_id) for course, course_id in zip(old, "abcd", strict=True)]
    page = [
        old[0],
        record("b", changed_at="now"),
        record("c", origin_id="7"),
        record("d", remote_deleted_at=DELETED_AT),
        record("e"),
        record("f", revisions=7),
    ]

    judged, unchanged = judge_page(identify_records(page, NOW)[0], [*stored, None, None], ())

    assert unchanged == 1
    assert [(one.course_id, one.verdict, one.live_before) for one in judged] == [
        ("b", Verdict.REFRESHED, True),
        ("c", Verdict.UPDATED, True),
        ("d", Verdict.DELETED, True),
        ("e", Verdict.CREATED, False),
        ("f", Verdict.QUARANTINED, False),
    ]


def test_a_deleted_course_was_not_live():
    gone = packed(record("a", remote_deleted_at=DELETED_AT), "a")

    (restored,), _ = judge_page(identify_records([record("a")], NOW)[0], [gone], ())

    assert (restored.verdict, restored.live_before) == (Verdict.RESTORED, False)


def test_known_bytes_are_not_looked_into():
    records_seen, _ = identify_records([record("a")], NOW)
    known = bytearray(packed(record("a"), "a"))
    known[57:] = b""  # nothing but the raw digest is there to be compared

    assert judge_page(records_seen, [bytes(known)], ()) == ([], 1)


def test_bytes_known_under_an_older_version_are_judged_and_then_known(monkeypatch):
    older = Version(b"0", {"remote_id": lambda course: [course.remote_id]})
    monkeypatch.setitem(OLDER, older.tag, older)
    course = record("a")
    known = msgspec.structs.replace(
        unpack(packed(course, "a")),
        version=older.tag,
        raw=xxh3_128_digest(course, older.seed),
        paths=path_digests(msgspec.json.decode(course, type=Course), older),
    )
    records_seen, _ = identify_records([course], NOW)

    (judged,), _ = judge_page(records_seen, [known.pack()], ())

    assert (judged.verdict, judged.live_before) == (Verdict.REFRESHED, True)
    assert judged.fingerprint.pack() == packed(course, "a")
    assert judge_page(records_seen, [packed(course, "a")], ()) == ([], 1)


def test_a_catalogue_of_a_newer_release_stops_the_poll():
    with pytest.raises(FingerprintVersionError):
        judge_page(
            identify_records([record("a")], NOW)[0], [b"2" + packed(record("b"), "b")[1:]], ()
        )


def test_ignored_paths_are_ignored_on_a_page():
    records_seen, _ = identify_records([record("a", origin_id="7")], NOW)

    (judged,), _ = judge_page(records_seen, [packed(record("a"), "a")], {"origin_id"})

    assert judged.verdict is Verdict.REFRESHED


def test_a_page_and_its_fingerprints_must_fit():
    with pytest.raises(ValueError, match="zip"):
        judge_page(identify_records([record("a")], NOW)[0], [], ())


def test_an_empty_page_means_nothing():
    assert judge_page([], [], ()) == ([], 0)


# --- what a full poll has seen ---------------------------------------------------------------


def test_what_was_seen_is_found_again():
    course_ids = [f"course-{number}" for number in range(1_000)] + ["", "名前"]

    digests = seen_digests(course_id.encode() for course_id in course_ids)
    seen = SeenCourses(digests + digests[:80])

    assert len(digests) == 8 * len(course_ids)
    assert (seen.distinct, len(seen)) == (len(course_ids), len(course_ids) + 10)
    assert all(course_id in seen for course_id in course_ids)
    assert "other" not in seen
    assert "a" not in SeenCourses(b"")
