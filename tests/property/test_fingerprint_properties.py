from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Collection, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from xxhash import xxh3_128_digest

from service.domain.courses.change import Judgement, Verdict, judge, judge_absence
from service.domain.courses.fingerprint import Fingerprint, changed_paths, raw_digest, unpack
from service.domain.courses.received import identify_records, read_record
from service.domain.courses.record import Course
from service.domain.courses.tracked_paths import (
    CURRENT,
    OLDER,
    REMOTE_DATA_PATHS,
    TRACKED_PATHS,
    Version,
    path_digests,
)
from service.domain.polling.page import judge_page

JSONObject = dict[str, Any]
NOW = 1_795_424_001_123

# --- courses as the upstream describes them ----------------------------------------------

names = st.text(max_size=6)
ids = st.text("abcXYZ0123", min_size=1, max_size=5)
maybe = names | st.none()
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | names
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
free_form = st.dictionaries(names, anything, max_size=3) | st.none()

integration_field = st.fixed_dictionaries(
    {
        "id": ids,
        "key": names,
        "type": st.sampled_from(["DEFAULT", "CUSTOM"]),
        "value": anything,
        "label": maybe,
    }
)
provider = st.fixed_dictionaries({"id": ids, "remote_id": names, "name": maybe})
skill_assignment = st.fixed_dictionaries(
    {"skill": st.fixed_dictionaries({"id": ids, "remote_id": maybe, "name": maybe})}
)
dates = st.none() | st.datetimes().map(lambda at: at.strftime("%Y-%m-%dT%H:%M:%S.000Z"))
revision = st.fixed_dictionaries(
    {
        "id": ids,
        "remote_id": names,
        "course_id": maybe,
        "title": maybe,
        "description": maybe,
        "remote_url": maybe,
        "status": st.sampled_from(["ACTIVE", "INACTIVE", "SOMETHING_NEW", None]),
        "remote_created_at": dates,
        "remote_deleted_at": dates,
        "changed_at": dates,
        "remote_data": free_form,
        "custom_fields": free_form,
        "integration_fields": st.lists(integration_field, max_size=2),
        "skill_assignments": st.lists(skill_assignment, max_size=2),
    }
)
courses = st.fixed_dictionaries(
    {
        "id": st.just("c1"),
        "remote_id": names,
        "provider_id": maybe,
        "origin_id": maybe,
        "remote_created_at": dates,
        "remote_deleted_at": st.none(),
        "changed_at": dates,
        "remote_data": free_form,
        "custom_fields": free_form,
        "integration_fields": st.lists(integration_field, max_size=3),
        "provider": provider | st.none(),
        "revisions": st.lists(revision, max_size=3, unique_by=lambda one: one["id"]),
    }
)
# Without a remote id, which every live course has, a record may be taken for an anonymised one.
present = courses.filter(lambda course: course["remote_id"] != "")

# --- what is done to them ----------------------------------------------------------------


def raw(value: Any, **how: Any) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value, **how).encode())


def verdict_on(
    record: msgspec.Raw, known: Fingerprint | None, ignored: Collection[str] = ()
) -> Judgement:
    """The verdict on a record of the course `c1`, whatever id can be read in it."""
    received = read_record(record, NOW, raw_digest(record))
    return judge(msgspec.structs.replace(received, course_id="c1"), known, ignored)


def digests(course: JSONObject) -> bytes:
    return path_digests(msgspec.json.decode(raw(course), type=Course))


def differing(before: JSONObject, after: JSONObject) -> tuple[str, ...]:
    return changed_paths(digests(before), digests(after))


def written(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


UNORDERED = ("revisions", "integration_fields", "skill_assignments")


def shuffled(value: Any, shuffle: Callable[[list[Any]], None], *, ordered: bool = True) -> Any:
    """The same record with every object's keys, and the lists that are sets, in another order."""
    if isinstance(value, list):
        items = [shuffled(item, shuffle) for item in value]
        if not ordered:
            shuffle(items)
        return items
    if not isinstance(value, dict):
        return value
    keys = list(value)
    shuffle(keys)
    return {key: shuffled(value[key], shuffle, ordered=key not in UNORDERED) for key in keys}


def spelled(value: Any, source: random.Random) -> str:
    """The same JSON with any whitespace where it may stand, and strings escaped or not."""

    def space() -> str:
        return "".join(source.choices(" \n\r\t", k=source.choice((0, 0, 1, 3))))

    match value:
        case list():
            brackets, items = "[]", [spelled(item, source) for item in value]
        case dict():
            brackets = "{}"
            items = [
                spelled(key, source) + ":" + spelled(item, source) for key, item in value.items()
            ]
        case _:
            return space() + json.dumps(value, ensure_ascii=source.random() < 0.5) + space()
    inside = ",".join(items) or space()
    return space() + brackets[0] + inside + brackets[1] + space()


def records_within(course: JSONObject) -> list[JSONObject]:
    """The course and everything nested in it whose fields the upstream names."""
    found = [course, *course["revisions"], *course["integration_fields"]]
    if course["provider"] is not None:
        found.append(course["provider"])
    for one in course["revisions"]:
        found += one["integration_fields"]
        for link in one["skill_assignments"]:
            found += [link, link["skill"]]
    return found


def replace(record: JSONObject, field: str, value: Any) -> None:
    assume(written(record[field]) != written(value))
    record[field] = value


def mutate_list(data: st.DataObject, record: JSONObject, field: str, item: Any) -> None:
    """Adds, removes or changes one item of a list whose order means nothing."""
    before = sorted(map(tracked_part, record[field]))
    record[field] = data.draw(st.lists(item, max_size=3))
    assume(sorted(map(tracked_part, record[field])) != before)


def tracked_part(item: JSONObject) -> str:
    return written(
        {field: value for field, value in item.items() if field != "id" or "key" not in item}
    )


# Which revisions there are cannot change without what they say.
SINGLE_PATHS = [path for path in TRACKED_PATHS if path != "revisions"]


def mutate(data: st.DataObject, course: JSONObject, path: str) -> None:
    """Changes what `path` covers and nothing else."""
    parent, _, field = path.rpartition(".")
    record = course
    if parent:
        assume(course["revisions"])
        record = data.draw(st.sampled_from(course["revisions"]))
    match field:
        case "provider":
            mutate_provider(data, course)
        case "integration_fields":
            mutate_list(data, record, field, integration_field)
        case "skill_assignments":
            mutate_list(data, record, field, skill_assignment)
        case "remote_data" | "custom_fields":
            replace(record, field, data.draw(free_form))
        case "remote_created_at" | "remote_deleted_at":
            replace(record, field, data.draw(dates))
        case "remote_id":
            replace(record, field, data.draw(names))
        case _:
            replace(record, field, data.draw(maybe))


def mutated(data: st.DataObject, course: JSONObject) -> tuple[JSONObject, set[str]]:
    """A copy with some changes, and the paths that cover them."""
    after = copy.deepcopy(course)
    paths = [path for path in SINGLE_PATHS if course["revisions"] or "revisions" not in path]
    changed = data.draw(st.sets(st.sampled_from(paths), min_size=1, max_size=3))
    for path in sorted(changed):
        mutate(data, after, path)
    return after, changed


def mutate_provider(data: st.DataObject, course: JSONObject) -> None:
    before = written([course["provider_id"], course["provider"]])
    if data.draw(st.booleans()):
        course["provider_id"] = data.draw(maybe)
    else:
        course["provider"] = data.draw(provider | st.none())
    assume(written([course["provider_id"], course["provider"]]) != before)


# --- what counts as a change -------------------------------------------------------------


@given(courses, st.randoms(use_true_random=False))
def test_another_order_or_spelling_of_the_same_record_is_no_change(course, source: random.Random):
    other = spelled(shuffled(course, source.shuffle), source)
    assert written(json.loads(spelled(course, source))) == written(course)
    known = verdict_on(raw(course), None).fingerprint

    judgement = verdict_on(msgspec.Raw(other.encode()), known)

    assert judgement.verdict in {Verdict.UNCHANGED, Verdict.REFRESHED}


LISTS = ("revisions", "integration_fields", "skill_assignments")


def emptied(course: JSONObject, data: st.DataObject) -> tuple[JSONObject, JSONObject]:
    """The course with some of its lists empty, and the same with null for some of the empty."""
    lists, nulls = copy.deepcopy(course), copy.deepcopy(course)
    pairs = [(lists, nulls), *zip(lists["revisions"], nulls["revisions"], strict=True)]
    for one, other in pairs:
        for field in [field for field in LISTS if field in one]:
            if data.draw(st.booleans()):
                one[field] = []
            if not one[field]:
                other[field] = data.draw(st.sampled_from([None, []]))
    return lists, nulls


@given(courses, st.data())
def test_a_list_that_is_null_is_an_empty_one(course, data):
    lists, nulls = emptied(course, data)
    known = verdict_on(raw(lists), None).fingerprint

    assert differing(lists, nulls) == ()
    assert verdict_on(raw(nulls), known).event_type is None
    # What changes beside them is seen from either.
    assert differing(course, nulls) == differing(course, lists)


@pytest.mark.parametrize("path", SINGLE_PATHS)
@settings(max_examples=settings().max_examples // 2)  # for each of many paths
@given(st.data())
def test_a_change_of_one_tracked_value_names_exactly_its_path(path, data):
    before = data.draw(courses)
    after = copy.deepcopy(before)

    mutate(data, after, path)

    assert differing(before, after) == (path,)


@given(courses, revision, st.data())
def test_a_revision_that_comes_or_goes_is_named(course, added, data):
    assume(added["id"] not in [one["id"] for one in course["revisions"]])
    longer = copy.deepcopy(course)
    longer["revisions"].insert(data.draw(st.integers(0, len(course["revisions"]))), added)

    for changed in (differing(course, longer), differing(longer, course)):
        assert "revisions" in changed
        assert all(path.startswith("revisions") for path in changed)


@given(courses, st.data())
def test_volatile_and_unknown_fields_are_no_change(course, data):
    after = copy.deepcopy(course)
    for record in records_within(after):
        if "changed_at" in record:
            record["changed_at"] = data.draw(dates)
        if "course_id" in record:
            record["course_id"] = data.draw(maybe)
        if "key" in record:
            record["id"] = data.draw(ids)
        if data.draw(st.booleans()):
            record["a_field_of_next_year"] = data.draw(anything)

    assert differing(course, after) == ()


@given(courses, courses, st.sets(st.sampled_from(TRACKED_PATHS)))
def test_ignored_paths_are_left_out_and_all_others_stay(before, after, ignored):
    changed = differing(before, after)

    assert changed_paths(digests(before), digests(after), ignored) == tuple(
        path for path in changed if path not in ignored
    )


@given(courses, st.data(), st.sets(st.sampled_from(TRACKED_PATHS)), st.booleans())
def test_paths_that_are_ignored_or_remote_data_that_is_not_tracked_hide_just_themselves(
    before, data, paths, track_remote_data
):
    ignored = paths if track_remote_data else paths | REMOTE_DATA_PATHS
    after, changed = mutated(data, before)

    judgement = verdict_on(raw(after), known_as("live", before), ignored)

    reported = tuple(path for path in TRACKED_PATHS if path in changed - ignored)
    assert judgement.changed == reported
    assert judgement.verdict is (Verdict.UPDATED if reported else Verdict.REFRESHED)


# --- when the version of fingerprints changes --------------------------------------------


@pytest.fixture(scope="module")
def older() -> Iterator[Version]:
    """A version that tracked something else, less, otherwise, and in another order."""
    gone = {"provider", "revisions.title"}
    tracked = {
        path: lambda course, extract=extract: ["then", extract(course)]
        for path, extract in reversed(CURRENT.tracked.items())
        if path not in gone
    }
    version = Version(b"0", {"revision_count": lambda c: len(c.revisions or ()), **tracked})
    OLDER[version.tag] = version
    yield version
    del OLDER[version.tag]


def then(version: Version, course: JSONObject) -> Fingerprint:
    """What a release of that version kept of a live course, as it is read today."""
    known = msgspec.structs.replace(
        verdict_on(raw(course), None).fingerprint,
        version=version.tag,
        raw=xxh3_128_digest(raw(course), version.seed),
        paths=path_digests(msgspec.json.decode(raw(course), type=Course), version),
        sequence=7,
    )
    assert unpack(known.pack()) == known
    return unpack(known.pack())


@given(courses, st.randoms(use_true_random=False))
def test_another_version_alone_is_no_change(older, course, source: random.Random):
    known = then(older, course)
    for other in (course, shuffled(course, source.shuffle)):
        judgement = verdict_on(raw(other), known)

        assert (judgement.verdict, judgement.changed) == (Verdict.REFRESHED, ())
        assert judgement.fingerprint == msgspec.structs.replace(
            verdict_on(raw(other), None).fingerprint, sequence=7
        )
        assert verdict_on(raw(other), judgement.fingerprint).verdict is Verdict.UNCHANGED


@given(courses, st.data())
def test_a_change_while_the_version_changes_is_reported_with_its_paths(older, before, data):
    after, changed = mutated(data, before)

    judgement = verdict_on(raw(after), then(older, before))

    reported = tuple(path for path in older.tracked if path in changed)
    assert judgement.changed == reported
    assert judgement.verdict is (Verdict.UPDATED if reported else Verdict.REFRESHED)
    assert judgement.fingerprint == msgspec.structs.replace(
        verdict_on(raw(after), None).fingerprint, sequence=7
    )
    assert verdict_on(raw(after), judgement.fingerprint).verdict is Verdict.UNCHANGED


@given(courses, courses, st.sets(st.sampled_from(TRACKED_PATHS)))
def test_both_versions_find_the_same_changes_in_what_both_track(older, before, after, ignored):
    found = verdict_on(raw(after), then(older, before), ignored)

    both = set(older.tracked) & set(TRACKED_PATHS)
    assert set(found.changed) & both == set(differing(before, after)) & both - ignored
    assert ("revision_count" in found.changed) == (
        len(before["revisions"]) != len(after["revisions"])
    )


# --- what is left of a deleted course ----------------------------------------------------


def blanked(data: st.DataObject, value: Any) -> Any:
    """A record of which nothing but bookkeeping is left."""
    if isinstance(value, list):
        kept = [blanked(data, item) for item in value if isinstance(item, dict)]
        return data.draw(st.sampled_from([kept, [], None]))
    blank: JSONObject = {}
    for field, content in value.items():
        if field in {"id", "course_id", "changed_at", "remote_deleted_at"}:
            blank[field] = content
        elif isinstance(content, list) or (isinstance(content, dict) and "id" in content):
            blank[field] = blanked(data, content)
        else:
            blank[field] = data.draw(st.sampled_from([None, "", [], {}, False]))
    return blank


@given(courses, st.data(), dates, st.sampled_from(["tombstone", "absence"]))
def test_the_anonymised_record_of_a_deleted_course_is_no_event(course, data, deleted_at, how):
    known = known_as("live", course)
    gone = judge_absence("c1", known)
    if how == "tombstone":
        gone = verdict_on(raw({**course, "remote_deleted_at": "2026-01-01"}), known)
    assert gone.verdict is Verdict.DELETED
    anonymised = {**blanked(data, course), "remote_deleted_at": deleted_at}

    judgement = verdict_on(raw(anonymised), gone.fingerprint)

    assert (judgement.verdict, judgement.event_type) == (Verdict.RECORDED, None)
    kept = judgement.fingerprint
    assert (kept.deleted, kept.remote_id) == (True, course["remote_id"])
    assert verdict_on(raw(anonymised), kept).verdict is Verdict.UNCHANGED


@given(
    st.dictionaries(
        st.sampled_from([*Course.__struct_fields__, "changed_at"]) | names, anything, max_size=12
    ),
    courses,
    st.lists(st.integers(128, 255), max_size=6).map(bytes),  # seldom UTF-8
)
def test_a_tombstone_needs_its_id_and_date_and_nothing_else_intact(record, course, piece):
    record = {"broken": "HERE", **record, "id": "c1", "remote_deleted_at": "2026-01-01"}
    tombstone = msgspec.Raw(bytes(raw(record)).replace(b"HERE", piece, 1))

    for state, verdict in (
        ("unknown", Verdict.RECORDED),
        ("live", Verdict.DELETED),
        ("deleted", Verdict.RECORDED),
    ):
        judgement = verdict_on(tombstone, known_as(state, course))

        assert judgement.verdict is verdict
        assert judgement.fingerprint.deleted
        assert judgement.record == bytes(tombstone)


# --- packing -----------------------------------------------------------------------------

fingerprints = st.builds(
    Fingerprint,
    deleted=st.booleans(),
    raw=st.binary(min_size=16, max_size=16),
    paths=st.binary(min_size=5 * len(TRACKED_PATHS), max_size=5 * len(TRACKED_PATHS)),
    remote_id=st.none() | st.text(),
    origin_id=st.none() | st.text(),
    sequence=st.integers(0, 10**13 - 1),
    event=st.none() | st.text("0123456789abcdefghjkmnpqrstvwxyz", min_size=26, max_size=26),
)


@given(fingerprints)
def test_a_packed_fingerprint_reads_back_as_it_was(fingerprint):
    assert unpack(fingerprint.pack()) == fingerprint


# --- any record at all -------------------------------------------------------------------

known_states = st.sampled_from(["unknown", "live", "deleted"])


def known_as(state: str, course: JSONObject) -> Fingerprint | None:
    if state == "unknown":
        return None
    fingerprint = verdict_on(raw(course), None).fingerprint
    assert fingerprint is not None
    return judge_absence("c1", fingerprint).fingerprint if state == "deleted" else fingerprint


ALLOWED = {
    "unknown": {Verdict.CREATED, Verdict.RECORDED, Verdict.QUARANTINED},
    "live": {
        Verdict.UNCHANGED,
        Verdict.REFRESHED,
        Verdict.UPDATED,
        Verdict.DELETED,
        Verdict.QUARANTINED,
    },
    "deleted": {Verdict.RESTORED, Verdict.RECORDED, Verdict.QUARANTINED},
}


def assert_sound(judgement: Judgement, state: str) -> None:
    assert judgement.course_id == "c1"
    assert judgement.verdict in ALLOWED[state]
    if judgement.verdict is Verdict.QUARANTINED:
        assert judgement.problem
        assert judgement.fingerprint is None
    elif judgement.verdict is not Verdict.UNCHANGED:
        assert judgement.fingerprint is not None
        assert unpack(judgement.fingerprint.pack()) == judgement.fingerprint


tombstones = st.just("2026-01-01T00:00:00.000Z")


@given(
    st.dictionaries(
        st.sampled_from([*Course.__struct_fields__, "changed_at"]) | names, anything, max_size=12
    ),
    st.none() | tombstones | anything,
    courses,
    known_states,
)
def test_any_object_with_an_id_gets_a_verdict(record, deleted_at, course, state):
    record = {**record, "id": "c1", "remote_deleted_at": deleted_at}

    judgement = verdict_on(raw(record), known_as(state, course))

    assert_sound(judgement, state)
    if judgement.verdict is Verdict.DELETED:
        assert isinstance(deleted_at, str)


@given(courses, known_states, courses, st.data())
def test_one_value_of_the_wrong_kind_gets_a_verdict(course, state, before, data):
    record = data.draw(st.sampled_from(records_within(course)))
    field = data.draw(
        st.sampled_from([field for field in record if record is not course or field != "id"])
    )
    record[field] = data.draw(anything)

    assert_sound(verdict_on(raw(course), known_as(state, before)), state)


@given(courses, known_states, st.data())
def test_bytes_that_are_not_json_or_not_utf8_get_a_verdict(course, state, data):
    record = bytearray(bytes(raw(course, ensure_ascii=False)))
    for _ in range(data.draw(st.integers(1, 3))):
        record[data.draw(st.integers(0, len(record) - 1))] = data.draw(st.integers(0, 255))
    known = known_as(state, course)

    judgement = verdict_on(msgspec.Raw(bytes(record)), known)

    if judgement.course_id == "c1":  # otherwise the damage made another course of it
        assert_sound(judgement, state)
    if judgement.verdict in {Verdict.CREATED, Verdict.UPDATED, Verdict.RESTORED}:
        bytes(record).decode()


@pytest.mark.parametrize("field", ["custom_fields", "a_field_of_next_year", "remote_deleted_at"])
@pytest.mark.parametrize("state", ["unknown", "live", "deleted"])
def test_nesting_without_end_gets_a_verdict(field, state):
    known = known_as(state, COURSE)
    record = bytes(raw({**COURSE, field: "DEEP"}))
    for depth in (*range(700, 1100, 4), 100_000):
        nested = msgspec.Raw(record.replace(b'"DEEP"', b"[" * depth + b"]" * depth))

        assert_sound(verdict_on(nested, known), state)
        identify_records([nested], NOW)


COURSE: JSONObject = {
    "id": "c1",
    "remote_id": "32",
    "provider_id": None,
    "origin_id": None,
    "remote_created_at": None,
    "remote_deleted_at": None,
    "changed_at": None,
    "remote_data": None,
    "custom_fields": None,
    "integration_fields": [],
    "provider": None,
    "revisions": [],
}

# --- what a subscriber ends up believing -------------------------------------------------


class Subscriber:
    """Believes what events say, and nothing else."""

    def __init__(self) -> None:
        self.live = False
        self.content: bytes | None = None

    def told(self, judgement: Judgement) -> None:
        match judgement.event_type:
            case "course.created":
                assert not self.live, "created twice"
                self.live, self.content = True, judgement.record
            case "course.updated":
                assert self.live, "updated while deleted"
                assert judgement.changed
                self.content = judgement.record
            case "course.deleted":
                assert self.live, "deleted twice"
                assert judgement.evidence in {"tombstone", "absence"}
                self.live = False


steps = st.lists(
    st.sampled_from(["first", "second", "reordered", "tombstone", "blank", "broken", "absent"]),
    max_size=12,
)


@given(present, present, steps, st.randoms(use_true_random=False))
def test_events_alone_tell_a_subscriber_how_the_course_stands(
    first, second, taken, source: random.Random
):
    subscriber = Subscriber()
    known: Fingerprint | None = None
    live, content = False, None
    for step in taken:
        if step == "absent":
            if known is None or known.deleted:
                continue
            judgement = judge_absence("c1", known)
            live = False
        else:
            record: JSONObject = {"first": first, "second": second}.get(step, first)
            if step == "tombstone":
                record = {**second, "remote_deleted_at": "2026-01-01T00:00:00.000Z"}
                live = False
            elif step == "blank":
                record = dict.fromkeys(COURSE) | {"id": "c1"}
            elif step == "broken":
                record = {**first, "revisions": 7}
            else:
                record = shuffled(record, source.shuffle) if step == "reordered" else record
                live, content = True, record
            judgement = verdict_on(raw(record), known)
        subscriber.told(judgement)
        known = judgement.fingerprint or known

        assert subscriber.live == live
        assert (known is not None and not known.deleted) == live
        if live:
            assert subscriber.content is not None
            assert content is not None
            assert differing(json.loads(subscriber.content), content) == ()


@given(st.lists(present, min_size=1, max_size=6))
def test_a_page_seen_twice_says_nothing_the_second_time(found):
    records = [raw({**course, "id": f"c{number}"}) for number, course in enumerate(found)]
    records_seen, _ = identify_records(records, NOW)
    first, _ = judge_page(records_seen, [None] * len(records_seen), ())
    stored = [one.fingerprint.pack() for one in first if one.fingerprint]

    assert judge_page(records_seen, stored, ()) == ([], len(records))
