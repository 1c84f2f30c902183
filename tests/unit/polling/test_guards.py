from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.courses.change import Judgement, Verdict
from service.domain.courses.fingerprint import NO_RAW, Fingerprint, path_digest
from service.domain.courses.tracked_paths import PATH_DIGEST_BYTES, TRACKED_PATHS
from service.domain.review.guards import (
    Exceeded,
    Guards,
    Withheld,
    accepted,
    distrusted_paths,
    divide,
    exceeded_limits,
    suspect_paths,
    too_many_deleted,
    unpack_withheld,
)

GUARDS = Guards()
OFF = Guards(deleted_share=1.0, deleted_share_max=1.0, changed_share=1.0)
RAW = b"r" * 16


def fingerprint(fill: bytes, **fields) -> Fingerprint:
    return Fingerprint(
        **{
            "deleted": False,
            "raw": RAW,
            "paths": fill * (PATH_DIGEST_BYTES * len(TRACKED_PATHS)),
            "remote_id": "32",
            "origin_id": None,
            "sequence": 7,
        }
        | fields
    )


# --- deletions ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("deleted", "live", "too_many"),
    [
        (0, 0, False),
        (1, 1, True),  # all of it
        (1, 2, False),  # half is not more than half
        (2, 3, True),
        (10, 20, False),
        (11, 20, True),
        (10, 66, False),
        (11, 66, True),
        (15, 100, False),
        (16, 100, True),
        (21, 140, False),  # 15 % to the course, however the share is represented
        (22, 140, True),
        (150, 1_000, False),
        (151, 1_000, True),
    ],
)
def test_a_poll_that_deletes_too_much_is_not_believed(deleted, live, too_many):
    assert too_many_deleted(GUARDS, deleted, live) is too_many


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_the_guard_of_deletions_is_what_it_says(deleted, live):
    expected = deleted > max(10, live * 15 / 100) or 2 * deleted > live
    assert too_many_deleted(GUARDS, deleted, live) is expected


def test_a_share_of_one_switches_a_guard_off():
    assert not too_many_deleted(OFF, 1_000, 1_000)
    assert not distrusted_paths(OFF, {"provider": 1_000}, 1_000)
    assert not suspect_paths(OFF, {"provider": 1_000}, {}, seen=10, live=1_000)


@given(st.integers(0, 3_000), st.integers(0, 3_000), st.integers(0, 1_000))
def test_what_is_switched_off_holds_nothing_however_often_a_poll_counts_a_course(
    deleted, changed, live
):
    assert not exceeded_limits(OFF, deleted, {"provider": changed}, live)
    assert not suspect_paths(OFF, {"provider": changed}, {}, seen=changed, live=live)


@pytest.mark.parametrize(
    ("off", "limits"),
    [
        ({}, ["deleted_share", "deleted_share_max", "changed_share"]),
        ({"deleted_share": 1.0}, ["deleted_share_max", "changed_share"]),
        ({"deleted_share_max": 1.0}, ["deleted_share", "changed_share"]),
        ({"changed_share": 1.0}, ["deleted_share", "deleted_share_max"]),
    ],
)
def test_a_share_of_one_switches_off_its_own_limit_only(off, limits):
    found = exceeded_limits(Guards(**off), 100, {"provider": 100, "origin_id": 3}, 100)
    assert [one.limit for one in found] == limits


def test_an_exceeded_limit_says_how_many_of_how_many():
    assert exceeded_limits(GUARDS, 15, {"provider": 51, "origin_id": 50}, 100) == [
        Exceeded(limit="changed_share", allowed=0.5, count=51, live=100, path="provider")
    ]
    assert exceeded_limits(GUARDS, 16, {}, 100) == [
        Exceeded(limit="deleted_share", allowed=0.15, count=16, live=100)
    ]


@given(
    st.integers(0, 300),
    st.dictionaries(st.sampled_from(TRACKED_PATHS), st.integers(0, 300), max_size=4),
    st.integers(0, 300),
)
def test_what_is_held_is_what_exceeds_a_limit(deleted, changed, live):
    found = exceeded_limits(GUARDS, deleted, changed, live)
    assert any(one.path is None for one in found) is too_many_deleted(GUARDS, deleted, live)
    paths = {one.path for one in found if one.path is not None}
    assert paths == distrusted_paths(GUARDS, changed, live)
    assert all(one.count > one.allowed * one.live for one in found)


# --- updates -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "live", "distrusted"),
    [
        (3, 5, False),  # a teacher renames most of a few courses
        (19, 19, False),
        (20, 20, True),
        (20, 39, True),
        (20, 40, False),
        (52, 52, True),
        (500, 1_000, False),
        (501, 1_000, True),
    ],
)
def test_a_path_that_changed_in_most_courses_is_distrusted(changed, live, distrusted):
    found = distrusted_paths(GUARDS, {"provider": changed, "origin_id": 1}, live)
    assert found == ({"provider"} if distrusted else set())


@given(st.integers(0, 2_000), st.integers(0, 2_000))
def test_the_guard_of_changes_is_what_it_says(changed, live):
    found = distrusted_paths(GUARDS, {"provider": changed}, live)
    assert bool(found) is (changed >= 20 and 2 * changed > live)


def test_updates_wait_until_enough_records_were_seen():
    assert suspect_paths(GUARDS, {}, {}, seen=19, live=1_000) == set(TRACKED_PATHS)
    assert suspect_paths(GUARDS, {}, {}, seen=20, live=1_000) == set()


def test_a_path_is_suspect_while_most_records_changed_in_it():
    changed = {"provider": 130, "origin_id": 120}
    assert suspect_paths(GUARDS, changed, {}, seen=250, live=1_000) == {"provider"}


def test_what_is_held_already_counts_along():
    held = {"provider": 490}
    assert suspect_paths(GUARDS, {"provider": 11}, held, seen=1_000, live=1_000) == {"provider"}
    assert suspect_paths(GUARDS, {"provider": 10}, held, seen=1_000, live=1_000) == set()


def test_a_catalogue_too_small_for_a_flood_never_waits():
    assert suspect_paths(GUARDS, {"provider": 19}, {}, seen=19, live=19) == set()


@given(
    st.dictionaries(st.sampled_from(TRACKED_PATHS), st.integers(0, 2_000), max_size=4),
    st.dictionaries(st.sampled_from(TRACKED_PATHS), st.integers(0, 2_000), max_size=4),
    st.integers(20, 2_000),
    st.integers(20, 2_000),
)
def test_what_is_distrusted_in_the_end_was_suspect_at_the_last_page(changed, held, seen, live):
    together = {path: changed.get(path, 0) + held.get(path, 0) for path in changed | held}
    suspects = suspect_paths(GUARDS, changed, held, seen=seen, live=live)
    assert distrusted_paths(GUARDS, together, live) <= suspects


# --- what is kept of a change that waits ---------------------------------------------------

DIGESTS = st.binary(min_size=PATH_DIGEST_BYTES, max_size=PATH_DIGEST_BYTES)


@given(
    st.one_of(
        st.just(Withheld(kind="absence")),
        st.builds(Withheld, kind=st.just("tombstone"), raw=st.binary(min_size=16, max_size=16)),
        st.builds(
            Withheld,
            kind=st.just("update"),
            paths=st.dictionaries(st.sampled_from(TRACKED_PATHS), DIGESTS, min_size=1),
        ),
    )
)
def test_a_withheld_change_is_read_as_it_was_written(withheld):
    assert unpack_withheld(withheld.pack()) == withheld


def updated(*paths: str) -> tuple[Judgement, Fingerprint]:
    known, after = fingerprint(b"k"), bytearray(fingerprint(b"k").paths)
    for path in paths:
        start = TRACKED_PATHS.index(path) * PATH_DIGEST_BYTES
        after[start : start + PATH_DIGEST_BYTES] = b"a" * PATH_DIGEST_BYTES
    judgement = Judgement(
        course_id="c",
        verdict=Verdict.UPDATED,
        known=known,
        changed=paths,
        fingerprint=fingerprint(b"k", paths=bytes(after), raw=b"n" * 16),
        record=b"{}",
    )
    return judgement, known


@given(
    st.sets(st.sampled_from(TRACKED_PATHS), min_size=1),
    st.sets(st.sampled_from(TRACKED_PATHS)),
)
def test_an_update_is_split_into_what_goes_on_and_what_waits(changed, waiting):
    judgement, known = updated(*sorted(changed))

    kept, withheld = divide(judgement, waiting)

    assert set(kept.changed if kept else ()) == changed - waiting
    assert set(withheld.paths if withheld else ()) == changed & waiting
    if kept is not None:
        before, after, new = known.paths, kept.fingerprint.paths, judgement.fingerprint.paths
        for path in changed - waiting:
            assert path_digest(after, path) == path_digest(new, path)
        for path in changed & waiting:  # the record is sent, so that neither is known any more
            assert path_digest(after, path) not in (
                path_digest(before, path),
                path_digest(new, path),
            )
        raw = judgement.fingerprint.raw if withheld is None else NO_RAW
        assert kept.fingerprint.raw == raw
    if withheld is not None:
        base = kept.fingerprint if kept is not None else known
        whole = accepted(base, withheld)
        assert whole.paths == judgement.fingerprint.paths
        assert whole.raw == NO_RAW


def test_digests_of_another_version_are_not_mixed():
    judgement, known = updated("provider", "origin_id")
    older = fingerprint(b"k", version=b"0", paths=b"k" * PATH_DIGEST_BYTES)

    kept, withheld = divide(msgspec.structs.replace(judgement, known=older), {"provider"})

    assert kept is None
    assert withheld.paths == {"provider": path_digest(judgement.fingerprint.paths, "provider")}
    assert accepted(older, withheld).paths == older.paths
    assert known.paths != judgement.fingerprint.paths


def test_an_accepted_deletion_leaves_a_deleted_course():
    for withheld, raw in (
        (Withheld(kind="tombstone", raw=b"t" * 16), b"t" * 16),
        (Withheld(kind="absence"), NO_RAW),
    ):
        gone = accepted(fingerprint(b"k"), withheld)
        assert (gone.deleted, gone.raw, gone.sequence) == (True, raw, 7)
