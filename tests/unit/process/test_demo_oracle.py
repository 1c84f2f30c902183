from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from service.commands.demo.oracle import LoggedChange, ReportedEvent, disagreements
from service.domain.courses.fingerprint import changed_paths
from service.domain.courses.record import Course
from service.domain.courses.tracked_paths import REMOTE_DATA_PATHS, path_digests
from service.sandbox.catalogue import Catalogue, ChangeRequest
from service.sandbox.churn import next_change

START = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)


def log(*entries: str) -> list[LoggedChange]:
    """`"course op path path"`, a second apart."""
    changes = []
    for n, entry in enumerate(entries, 1):
        course_id, op, *paths = entry.split()
        at = START + timedelta(seconds=n)
        changes.append(LoggedChange(n, at, op, course_id, tuple(paths)))
    return changes


def events(*entries: tuple[str, dict[str, Any]] | str) -> list[ReportedEvent]:
    """`"course kind path path"`, each detected late, with consistent sequences per course."""
    reported: list[ReportedEvent] = []
    last: dict[str, int] = {}
    for number, entry in enumerate(entries, 1):
        text, more = (entry, {}) if isinstance(entry, str) else entry
        course_id, kind, *said = text.split()
        fields: dict[str, Any] = {
            "id": f"evt_{number}",
            "type": f"course.{kind}",
            "timestamp": START + timedelta(minutes=1),
            "course_id": course_id,
            "sequence": 1000 + number,
            "previous_sequence": last.get(course_id),
        }
        if kind == "updated":
            fields["changed"] = tuple(said)
        elif kind == "created":
            fields["reason"] = said[0] if said else None
        else:
            fields["evidence"] = said[0] if said else "tombstone"
        reported.append(ReportedEvent(**fields | more))
        last[course_id] = reported[-1].sequence
    return reported


EVERYTHING = 1_000_000


@pytest.mark.parametrize(
    ("changes", "reported"),
    [
        ([], []),
        (["a edit title"], ["a updated title"]),
        (["a edit title", "a edit title"], ["a updated title", "a updated title"]),
        (["n create"], ["n created"]),
        (["a delete"], ["a deleted tombstone"]),
        (["a vanish"], ["a deleted absence"]),
        (["a delete", "a restore"], ["a deleted tombstone", "a created restored"]),
        (["a edit title", "b edit status"], ["b updated status", "a updated title"]),
        (
            ["a delete", "a restore", "a edit title", "a vanish", "a restore"],
            ["a deleted", "a created restored", "a updated title", "a deleted absence",
             "a created restored"],
        ),
    ],
)  # fmt: skip
def test_events_that_report_each_change_agree(changes: list[str], reported: list[str]) -> None:
    assert disagreements({"a", "b"}, log(*changes), events(*reported), settled=EVERYTHING) == []


@pytest.mark.parametrize(
    ("changes", "reported"),
    [
        (["a edit title", "a edit title"], ["a updated title"]),
        (["a edit title", "a edit status"], ["a updated status title"]),
        (["a edit title", "a edit title", "a edit status"], ["a updated status"]),
        (["a edit status", "a edit status"], []),
        (["a edit title", "a delete"], ["a deleted"]),
        (["a delete", "a restore"], []),
        (["a delete", "a restore"], ["a updated provider"]),
        (["a delete", "a restore", "a edit title"], ["a updated title"]),
        (["a delete", "a restore", "a edit title"], ["a deleted", "a created restored"]),
        (["a delete", "a vanish"], ["a deleted absence"]),
        (["a delete", "a anonymise"], ["a deleted tombstone"]),
        (["n create", "n edit title"], ["n created"]),
        (["n create", "n delete"], []),
        (["n create", "n vanish"], []),
        (["n create", "n delete", "n restore"], ["n created"]),
        (["n create", "n delete", "n restore"], ["n created restored"]),
        (["n create", "n vanish", "n restore"], ["n created"]),
        (["a edit remote_data"], []),
        (["a edit title remote_data"], ["a updated title"]),
    ],
)
def test_changes_between_two_polls_may_merge(changes: list[str], reported: list[str]) -> None:
    assert disagreements({"a"}, log(*changes), events(*reported), settled=EVERYTHING) == []


@pytest.mark.parametrize(
    ("changes", "reported"),
    [
        ([], ["a updated title"]),
        ([], ["x created"]),
        ([], ["a created"]),
        (["a edit title"], ["b updated title"]),
        (["a edit title"], ["a updated status"]),
        (["a edit title"], ["a updated status title"]),
        (["a edit title status"], ["a updated title"]),
        (["a edit title"], ["a updated"]),
        (["a edit title"], ["a created"]),
        (["a edit title"], ["a deleted"]),
        (["a edit title"], ["a updated title", "a updated title"]),
        (["a delete"], ["a deleted absence"]),
        (["a vanish"], ["a deleted tombstone"]),
        (["a delete"], ["a deleted", "a deleted"]),
        (["a delete", "a restore"], ["a created restored"]),
        (["a delete", "a restore"], ["a deleted", "a created"]),
        (["n create"], ["n created restored"]),
        (["n create"], ["n created", "n created"]),
        (["n create", "n vanish", "n restore"], ["n created restored"]),
        (["a edit remote_data"], ["a updated remote_data"]),
        (["a edit title", "a delete"], ["a deleted", "a updated title"]),
    ],
)
def test_an_event_that_no_change_explains_is_named(changes: list[str], reported: list[str]) -> None:
    found = disagreements({"a", "b"}, log(*changes), events(*reported))
    assert len(found) == 1
    assert "evt_" in found[0]
    assert "not in the log" in found[0]


@pytest.mark.parametrize(
    ("changes", "reported", "missing"),
    [
        (["a edit title"], [], "#1 edit of title"),
        (["n create"], [], "#1 create"),
        (["a delete"], [], "#1 delete"),
        (["a edit title", "a edit status"], ["a updated title"], "#2 edit of status"),
        (["a delete", "a restore"], ["a deleted"], "#2 restore"),
        (["n create", "n edit title", "n delete"], ["n created"], "#3 delete"),
        (["a edit status", "a edit status", "a edit status"], ["a updated status"], None),
        (["a edit title"] * 8 + ["a delete"], [], "and 4 more"),
    ],
)
def test_a_settled_change_that_was_not_reported_is_named(
    changes: list[str], reported: list[str], missing: str | None
) -> None:
    found = disagreements({"a"}, log(*changes), events(*reported), settled=EVERYTHING)
    if missing is None:
        assert found == []
    else:
        assert len(found) == 1
        assert "never reported" in found[0]
        assert missing in found[0]


def test_a_change_that_may_be_under_way_need_not_be_reported_yet() -> None:
    changes = log("a edit title", "a edit status")
    reported = events("a updated title")
    assert disagreements({"a"}, changes, reported, settled=1) == []
    assert len(disagreements({"a"}, changes, reported, settled=2)) == 1


def test_an_event_from_before_its_change_is_not_explained_by_it() -> None:
    early = events(("a updated title", {"timestamp": START - timedelta(seconds=5)}))
    assert "not in the log" in disagreements({"a"}, log("a edit title"), early)[0]


def test_a_gap_in_the_chain_of_sequences_is_named() -> None:
    changes = log("a edit title", "a edit status", "a edit title")
    whole = events("a updated title", "a updated status", "a updated title")
    assert disagreements({"a"}, changes, whole, settled=EVERYTHING) == []
    found = disagreements({"a"}, changes, [whole[0], whole[2]])
    assert "follows sequence 1002" in found[0]


def test_events_of_a_course_that_arrive_in_the_wrong_order_are_named() -> None:
    changes = log("a edit title", "a edit title")
    first, second = events("a updated title", "a updated title")
    assert disagreements({"a"}, changes, [second, first]) != []


def test_a_sequence_that_goes_back_is_named() -> None:
    changes = log("a edit title", "a edit title")
    doctored = events("a updated title", ("a updated title", {"sequence": 1}))
    assert "not above" in disagreements({"a"}, changes, doctored)[0]


def test_each_course_that_disagrees_is_named_once() -> None:
    found = disagreements(
        {"a", "b"},
        log("a edit title", "b edit title", "b edit status"),
        events("a updated status", "b updated title"),
        settled=EVERYTHING,
    )
    assert [line.split(":")[0] for line in found] == ["course a", "course b"]


# --- against the sandbox itself, polled at any moment --------------------------------------


def poll(
    catalogue: Catalogue, seen: dict[str, dict[str, Any] | None], now: int
) -> list[ReportedEvent]:
    """What a perfect observer of the whole catalogue reports, by the records alone."""
    reported: list[ReportedEvent] = []
    for summary in catalogue.courses():
        body = catalogue.record(summary.id)
        before = seen.get(summary.id)
        state: dict[str, Any] = {"sequence": before["sequence"] if before else None}
        said: dict[str, Any] | None = None
        if summary.state == "live":
            assert body is not None
            state["paths"] = path_digests(msgspec.json.decode(body, type=Course))
            if before is None:
                said = {"type": "course.created"}
            elif before["paths"] is None:
                said = {"type": "course.created", "reason": "restored"}
            else:
                paths = changed_paths(before["paths"], state["paths"], REMOTE_DATA_PATHS)
                said = {"type": "course.updated", "changed": paths} if paths else None
        elif before is None and summary.state == "vanished":
            continue
        else:
            state["paths"] = None
            if before is not None and before["paths"] is not None:
                evidence = "absence" if summary.state == "vanished" else "tombstone"
                said = {"type": "course.deleted", "evidence": evidence}
        if said is not None:
            sequence = now + len(reported) + 1
            reported.append(
                ReportedEvent(
                    id=f"evt_{sequence}",
                    timestamp=datetime.fromtimestamp(now / 1000, UTC),
                    course_id=summary.id,
                    sequence=sequence,
                    previous_sequence=state["sequence"],
                    **said,
                )
            )
            state["sequence"] = sequence
        seen[summary.id] = state
    return reported


@pytest.mark.parametrize("seed", range(12))
def test_a_perfect_observer_agrees_at_whatever_moments_it_looks(seed: int) -> None:
    chance = random.Random(seed)
    catalogue = Catalogue("sandbox:demo", courses=6, seed=seed)
    known = {course.id for course in catalogue.courses()}
    now = 1_800_000_000_000
    seen: dict[str, dict[str, Any] | None] = {}
    poll(catalogue, seen, now)
    for state in seen.values():
        assert state is not None
        state["sequence"] = None
    reported: list[ReportedEvent] = []
    for _ in range(150):
        now += chance.randrange(1, 5000)
        request = next_change(chance, catalogue)
        if request.op == "delete" and chance.random() < 0.5:
            request = ChangeRequest(op="vanish")
        catalogue.apply([request], now)
        if chance.random() < 0.3:
            reported += poll(catalogue, seen, now + 50)
    reported += poll(catalogue, seen, now + 60_000)
    changes = [
        LoggedChange(c.n, datetime.fromisoformat(c.at), c.op, c.course_id, c.paths)
        for c in catalogue.log()
    ]
    assert len(reported) > 30
    assert disagreements(known, changes, reported, settled=catalogue.changes) == []
    for number in chance.sample(range(len(reported)), 10):
        lacking = [event for index, event in enumerate(reported) if index != number]
        assert disagreements(known, changes, lacking, settled=catalogue.changes) != []
