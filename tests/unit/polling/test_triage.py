"""Which changes of a page are committed at once, and which wait or are held."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.courses.change import Judgement, Verdict, gone
from service.domain.courses.fingerprint import NO_RAW, Fingerprint
from service.domain.courses.tracked_paths import PATH_DIGEST_BYTES, TRACKED_PATHS
from service.domain.polling.triage import Held, Triage
from service.domain.review.guards import Guards, Withheld, unpack_withheld

GUARDS = Guards(deleted_count=2, deleted_share=0.1, changed_count=3, changed_share=0.5)
KNOWN = Fingerprint(
    deleted=False,
    raw=b"r" * 16,
    paths=b"k" * PATH_DIGEST_BYTES * len(TRACKED_PATHS),
    remote_id="32",
    origin_id=None,
)
CHANGED = msgspec.structs.replace(
    KNOWN, raw=b"n" * 16, paths=b"n" * PATH_DIGEST_BYTES * len(TRACKED_PATHS)
)
TOMBSTONE = Withheld(kind="tombstone", raw=b"t" * 16)


def updated(course_id: str, *paths: str) -> Judgement:
    return Judgement(
        course_id=course_id,
        verdict=Verdict.UPDATED,
        known=KNOWN,
        fingerprint=CHANGED,
        changed=paths,
        record=b"{}",
    )


def deleted(course_id: str) -> Judgement:
    return Judgement(
        course_id=course_id,
        verdict=Verdict.DELETED,
        known=KNOWN,
        fingerprint=gone(KNOWN, TOMBSTONE.raw),
        evidence="tombstone",
    )


def created(course_id: str) -> Judgement:
    return Judgement(course_id=course_id, verdict=Verdict.CREATED, fingerprint=CHANGED)


def triage(**fields) -> Triage:
    usual = {
        "guards": GUARDS,
        "kind": "delta",
        "changed": {},
        "waiting": False,
        "seen": 5,
        "live": 100,
        "held": Held(),
        "last": True,
    }
    return Triage(**usual | fields)


def operations(marks) -> dict[str, str]:
    return {mark.course_id: mark.operation for mark in marks}


def test_few_changes_of_a_whole_poll_are_committed_at_once():
    page = [created("a"), updated("b", "provider"), deleted("c")]
    done = triage().decide(page, ["a", "b"], {})
    assert (done.committed, done.marks, done.waiting) == (page, [], False)
    assert done.changed == {"provider": 1}


@pytest.mark.parametrize("fields", [{"last": False}, {"waiting": True}, {"kind": "full"}])
def test_deletions_wait_where_more_may_follow(fields):
    done = triage(**fields).decide([deleted("a")], [], {})
    assert done.committed == []
    (mark,) = done.marks
    assert (mark.course_id, mark.operation) == ("a", "wait")
    assert unpack_withheld(mark.withheld) == TOMBSTONE
    assert done.waiting


def test_a_flood_of_deletions_waits():
    page = [deleted(course_id) for course_id in "abc"]
    assert triage(live=10).decide(page, [], {}).committed == []
    assert triage(live=1_000).decide(page, [], {}).committed == page
    assert triage(live=1_000, held=Held(deleted=98)).decide(page, [], {}).committed == []


def test_updates_of_a_suspicious_path_wait_and_others_go_on():
    page = [updated("a", "origin_id", "provider"), *(updated(one, "origin_id") for one in "bcd")]
    done = triage(live=5).decide(page, list("abcd"), {})
    assert [(one.course_id, one.changed) for one in done.committed] == [("a", ("provider",))]
    assert operations(done.marks) == dict.fromkeys("abcd", "wait")
    assert {*unpack_withheld(done.marks[0].withheld).paths} == {"origin_id"}


def test_a_held_deletion_ends_when_its_course_is_live_on_a_page():
    done = triage().decide([], ["a"], {"a": TOMBSTONE})
    assert operations(done.marks) == {"a": "release"}
    assert triage().decide([deleted("a")], [], {"a": TOMBSTONE}).marks[0].operation == "keep"


def test_a_course_that_is_live_on_a_page_waits_no_more():
    done = triage(waiting=True).decide([], ["a"], {})
    assert operations(done.marks) == {"a": "absolve"}
    assert done.waiting


def test_a_broken_record_releases_nothing():
    broken = Judgement(course_id="a", verdict=Verdict.QUARANTINED, known=KNOWN, problem="x")
    done = triage(waiting=True).decide([broken], ["a"], {"a": TOMBSTONE})
    assert (done.committed, done.marks) == ([broken], [])


course_ids = st.sampled_from("abcdefgh")
judgements = st.one_of(
    st.builds(created, course_ids),
    st.builds(deleted, course_ids),
    st.builds(
        lambda course_id, paths: updated(course_id, *sorted(paths)),
        course_ids,
        st.sets(st.sampled_from(TRACKED_PATHS[:4]), min_size=1),
    ),
)
withheld = st.one_of(
    st.just(TOMBSTONE),
    st.just(Withheld(kind="absence")),
    st.dictionaries(
        st.sampled_from(TRACKED_PATHS[:4]), st.just(b"n" * PATH_DIGEST_BYTES), min_size=1
    ).map(lambda paths: Withheld(kind="update", paths=paths)),
)


@given(
    st.lists(judgements, max_size=8, unique_by=lambda one: one.course_id),
    st.dictionaries(course_ids, withheld),
    st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["delta", "full"]),
            "waiting": st.booleans(),
            "last": st.booleans(),
            "live": st.integers(0, 20),
            "seen": st.integers(0, 20),
        }
    ),
)
def test_each_part_of_a_change_is_committed_or_withheld_and_never_both(page, held, fields):
    live = [one.course_id for one in page if one.verdict is not Verdict.DELETED]
    done = triage(**fields).decide(page, live, held)

    committed = {one.course_id: one for one in done.committed}
    kept = {mark.course_id: mark for mark in done.marks if mark.operation in ("wait", "keep")}
    for one in page:
        there, mark = committed.get(one.course_id), kept.get(one.course_id)
        if one.verdict is Verdict.UPDATED:
            now = set(there.changed) if there is not None else set()
            later = set(unpack_withheld(mark.withheld).paths) if mark is not None else set()
            assert now | later == set(one.changed)
            assert not now & later
            assert there is None or mark is None or there.fingerprint.raw == NO_RAW
        else:
            assert (there is None) != (mark is None)
    assert done.waiting == (
        fields["waiting"] or any(mark.operation == "wait" for mark in done.marks)
    )
