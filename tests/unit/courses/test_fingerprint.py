from __future__ import annotations

import hashlib
import json

import msgspec
import pytest

from service.domain.courses.fingerprint import (
    NO_EVENT,
    NO_RAW,
    RAW,
    Fingerprint,
    changed_paths,
    raw_digest,
    unpack,
)
from service.domain.courses.record import Course
from service.domain.courses.tracked_paths import (
    CURRENT,
    OLDER,
    PATH_DIGEST_BYTES,
    TRACKED_PATHS,
    Version,
    path_digests,
)
from service.domain.errors import CoursewireError, FingerprintVersionError

EVENT = "01krd8x3m3000026vafvwsrmbh"
COURSE = {
    "id": "26vafvWSRmbhNcxJYqjCzuJg",
    "remote_id": "32",
    "provider_id": "7xPdr68N8kG9EzLwjsN9xyz",
    "origin_id": "course-123",
    "remote_created_at": "2022-08-07T14:01:29.196Z",
    "remote_deleted_at": None,
    "changed_at": "2022-08-07T14:01:29.196Z",
    "remote_data": {"/courses": {"n": 1}},
    "custom_fields": {"credits": 2.5, "größe": "ä", "big": 2**70, "empty": "", "none": None},
    "integration_fields": [
        {"id": "f1", "key": "room", "type": "CUSTOM", "value": "4a", "label": "Room"},
        {"id": "f2", "key": "level", "type": "DEFAULT", "value": 3, "label": None},
    ],
    "provider": {"id": "7xPdr68N8kG9EzLwjsN9xyz", "remote_id": "p-1", "name": "Academy"},
    "revisions": [
        {
            "id": "3KMdr68N8kG9EzLwjsN9aoz",
            "remote_id": "revision-1",
            "course_id": "26vafvWSRmbhNcxJYqjCzuJg",
            "title": "Fire safety",
            "description": "What to do, and what not.",
            "remote_url": "https://learning.example.com/1",
            "status": "ACTIVE",
            "remote_created_at": "2022-08-07T14:01:29.196Z",
            "remote_deleted_at": None,
            "changed_at": "2022-08-07T14:01:29.196Z",
            "remote_data": None,
            "custom_fields": {"b": [1, 2], "a": {}},
            "integration_fields": [],
            "skill_assignments": [
                {"skill": {"id": "s2", "remote_id": "skill-2", "name": "Calm"}},
                {"skill": {"id": "s1", "remote_id": "skill-1", "name": "First aid"}},
            ],
        },
        {
            "id": "4KMdr68N8kG9EzLwjsN9aoz",
            "remote_id": "revision-2",
            "course_id": None,
            "title": None,
            "description": None,
            "remote_url": None,
            "status": None,
            "remote_created_at": None,
            "remote_deleted_at": "2024-01-01T00:00:00.000Z",
            "changed_at": "2022-08-07T14:01:29.196Z",
            "remote_data": {"x": False},
            "custom_fields": None,
            "integration_fields": [
                {"id": "f3", "key": "k", "type": "CUSTOM", "value": None, "label": None}
            ],
            "skill_assignments": [],
        },
    ],
}


def digests(course: dict) -> bytes:
    return path_digests(msgspec.json.decode(json.dumps(course), type=Course))


def fingerprint(**fields) -> Fingerprint:
    return Fingerprint(
        **{
            "deleted": False,
            "raw": bytes(range(16)),
            "paths": b"p" * PATH_DIGEST_BYTES * len(TRACKED_PATHS),
            "remote_id": "32",
            "origin_id": "course-123",
            "sequence": 1_795_424_001_123,
            "event": EVENT,
        }
        | fields
    )


def test_the_tracked_paths_are_those_published():
    assert TRACKED_PATHS == (
        "remote_id",
        "origin_id",
        "remote_created_at",
        "remote_data",
        "custom_fields",
        "integration_fields",
        "provider",
        "revisions",
        "revisions.remote_id",
        "revisions.remote_created_at",
        "revisions.remote_deleted_at",
        "revisions.remote_data",
        "revisions.title",
        "revisions.description",
        "revisions.remote_url",
        "revisions.status",
        "revisions.custom_fields",
        "revisions.integration_fields",
        "revisions.skill_assignments",
    )


def test_the_digests_of_this_version_never_change():
    """Other digests under the same version would report every course as changed at once."""
    assert CURRENT.tag == b"1"
    found = digests(COURSE)
    assert len(found) == PATH_DIGEST_BYTES * len(TRACKED_PATHS)
    assert hashlib.sha256(found).hexdigest() == (
        "a8aa45030280298299fa3159aa887479a15ce6f39eb0344ff19226bb571fd859"
    )
    assert raw_digest(b'{"id":"a"}').hex() == "cd0f24c6a87f899923e5b37d4c14ed87"


def test_each_part_of_the_packed_form_is_where_the_scripts_expect_it():
    packed = fingerprint(deleted=True).pack()

    assert packed[0:2] == b"1D"
    assert packed[2:15] == b"1795424001123"
    assert packed[15:41] == EVENT.encode()
    assert packed[RAW] == packed[41:57] == bytes(range(16))
    assert packed[57:152] == b"p" * 95
    assert packed[152:] == b"=32\xff=course-123"


def test_the_packed_form_is_head_sequence_event_tail():
    """A script that gives a course its sequence and event puts these four together."""
    one = fingerprint(sequence=42)

    assert one.pack() == one.head() + b"0000000000042" + EVENT.encode() + one.tail()


def test_a_course_without_an_event_has_placeholders_of_the_same_width():
    packed = fingerprint(sequence=0, event=None).pack()

    assert packed[2:15] == b"0" * 13
    assert packed[15:41] == NO_EVENT
    assert (unpack(packed).sequence, unpack(packed).event) == (0, None)


@pytest.mark.parametrize("remote_id", [None, "", "32", "=", "a\x00b", "\x00é", "ÿ", "名前"])
@pytest.mark.parametrize("origin_id", [None, "", "7", "=\x00=", "\x00"])
def test_any_names_read_back(remote_id, origin_id):
    one = fingerprint(remote_id=remote_id, origin_id=origin_id)

    assert unpack(one.pack()) == one


# --- versions ----------------------------------------------------------------------------


@pytest.fixture
def older(monkeypatch) -> Version:
    version = Version(b"0", {path: CURRENT.tracked[path] for path in TRACKED_PATHS[::-2]})
    monkeypatch.setitem(OLDER, version.tag, version)
    return version


def test_each_version_is_known_by_one_byte_of_its_own():
    known = [CURRENT, *OLDER.values()]

    assert [version.tag for version in known[1:]] == list(OLDER)
    assert all(len(version.tag) == 1 for version in known)
    assert len({version.seed for version in known}) == len(known)


def test_a_fingerprint_of_an_older_version_reads_back_as_it_was(older):
    one = fingerprint(version=b"0", paths=b"p" * PATH_DIGEST_BYTES * len(older.tracked))

    packed = one.pack()

    assert packed[:2] == b"0L"
    assert packed[2:57] == fingerprint().pack()[2:57], "scripts rely on these places"
    assert packed[57:] == b"p" * 50 + b"=32\xff=course-123"
    assert unpack(packed) == one


def test_older_digests_are_told_apart_by_the_paths_of_their_version(older):
    course = msgspec.json.decode(json.dumps(COURSE), type=Course)
    other = msgspec.json.decode(
        json.dumps({**COURSE, "remote_id": "33", "origin_id": "x"}), type=Course
    )
    before, after = path_digests(course, older), path_digests(other, older)

    assert len(before) == PATH_DIGEST_BYTES * len(older.tracked)
    assert changed_paths(before, after, (), older) == ("remote_id",), "it never saw origin_id"
    assert changed_paths(before, after, {"remote_id"}, older) == ()


@pytest.mark.parametrize("tag", [b"2", b"0", b"\xff", b""])
def test_an_unknown_version_is_refused(tag):
    with pytest.raises(FingerprintVersionError, match="written by a newer release") as raised:
        unpack(tag + fingerprint().pack()[1:] if tag else b"")

    assert raised.value.tag == tag
    assert isinstance(raised.value, CoursewireError)


# --- what digests see --------------------------------------------------------------------


def test_no_record_has_the_digest_of_none():
    assert raw_digest(b"") != NO_RAW
    assert len(raw_digest(b"{}")) == len(NO_RAW)


def test_the_raw_digest_sees_every_byte():
    assert raw_digest(b'{"id":"a"}') != raw_digest(b'{"id": "a"}')


@pytest.mark.parametrize("path", TRACKED_PATHS)
def test_each_path_has_its_own_place(path):
    before = bytearray(digests(COURSE))
    at = TRACKED_PATHS.index(path) * PATH_DIGEST_BYTES
    for offset in range(PATH_DIGEST_BYTES):
        after = bytearray(before)
        after[at + offset] ^= 1
        assert changed_paths(bytes(before), bytes(after)) == (path,)


def replaced(value, place: tuple, new):
    """A copy of nested JSON with the value at `place` replaced."""
    if not place:
        return new
    key, *rest = place
    copy = value.copy()
    copy[key] = replaced(value[key], tuple(rest), new)
    return copy


FIELD, LINK = ("integration_fields", 1), ("revisions", 0, "skill_assignments", 1, "skill")
NESTED = ("revisions", 1, "integration_fields", 0)


@pytest.mark.parametrize(
    ("place", "path"),
    [
        (("provider_id",), "provider"),
        *((("provider", field), "provider") for field in ("id", "remote_id", "name")),
        *(((*FIELD, field), "integration_fields") for field in ("key", "type", "value", "label")),
        *(
            ((*NESTED, field), "revisions.integration_fields")
            for field in ("key", "type", "value", "label")
        ),
        *(((*LINK, field), "revisions.skill_assignments") for field in ("id", "remote_id", "name")),
        (("custom_fields", "größe"), "custom_fields"),
        (("remote_data", "/courses", "n"), "remote_data"),
        (("revisions", 0, "custom_fields", "b", 1), "revisions.custom_fields"),
        (("revisions", 1, "remote_data", "x"), "revisions.remote_data"),
    ],
)
def test_a_value_deep_inside_is_tracked(place, path):
    other = replaced(COURSE, place, "another")

    assert changed_paths(digests(COURSE), digests(other)) == (path,)


def test_numbers_beyond_machine_words_are_told_apart():
    other = {**COURSE, "custom_fields": {**COURSE["custom_fields"], "big": 2**70 + 1}}

    assert changed_paths(digests(COURSE), digests(other)) == ("custom_fields",)


def test_values_that_python_calls_equal_are_told_apart():
    one, true = ({**COURSE, "custom_fields": {"value": value}} for value in (1, True))

    assert changed_paths(digests(one), digests(true)) == ("custom_fields",)


def test_the_same_values_on_other_revisions_are_a_change():
    first, second = COURSE["revisions"]
    swapped = {
        **COURSE,
        "revisions": [
            {**first, "title": second["title"]},
            {**second, "title": first["title"]},
        ],
    }

    assert changed_paths(digests(COURSE), digests(swapped)) == ("revisions.title",)


def test_a_skill_that_moves_to_another_revision_is_a_change():
    first, second = COURSE["revisions"]
    moved = {
        **COURSE,
        "revisions": [
            {**first, "skill_assignments": []},
            {**second, "skill_assignments": first["skill_assignments"]},
        ],
    }

    assert changed_paths(digests(COURSE), digests(moved)) == ("revisions.skill_assignments",)


def test_a_list_that_is_null_is_an_empty_one():
    first, second = COURSE["revisions"]
    lists = {
        **COURSE,
        "integration_fields": [],
        "revisions": [first, {**second, "integration_fields": [], "skill_assignments": []}],
    }
    nulls = {
        **COURSE,
        "integration_fields": None,
        "revisions": [first, {**second, "integration_fields": None, "skill_assignments": None}],
    }

    assert digests(nulls) == digests(lists)
    assert digests({**COURSE, "revisions": None}) == digests({**COURSE, "revisions": []})


def test_every_path_can_be_ignored():
    blank = {**COURSE, "revisions": [], "custom_fields": None}

    changed = changed_paths(digests(COURSE), digests(blank))

    assert "revisions.title" in changed
    assert changed_paths(digests(COURSE), digests(blank), changed) == ()
