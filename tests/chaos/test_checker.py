"""The checker says so where a recorded history is not as it should be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.chaos.checker import MUST_BE_ZERO, Report, check
from tests.chaos.history import History, Receipt, State, content_of

RECORDED = Path(__file__).with_name("recorded.json.gz")
NAME = "receiver-0"


@pytest.fixture
def history() -> History:
    """What a real run of some seconds has seen."""
    return History.load(RECORDED)


def wrong(report: Report) -> set[str]:
    return {name for name in MUST_BE_ZERO if report.counts[name]}


def firsts(history: History) -> list[Receipt]:
    """The first receipt of each event by one subscriber."""
    seen: dict[str, Receipt] = {}
    for receipt in history.receipts:
        if receipt.subscriber == NAME and not receipt.replay:
            seen.setdefault(receipt.id, receipt)
    return list(seen.values())


def pair(history: History) -> tuple[Receipt, Receipt]:
    """First receipts of two events of one course that follow each other."""
    last: dict[tuple[str, str], Receipt] = {}
    for receipt in firsts(history):
        event = history.events[receipt.body]
        course = (event.upstream_id, event.course_id)
        before = last.get(course)
        if before is not None and history.events[before.body].sequence == event.previous_sequence:
            return before, receipt
        last[course] = receipt
    raise AssertionError("no course changed twice")


def without(history: History, *ids: str) -> History:
    history.receipts = [
        receipt
        for receipt in history.receipts
        if receipt.subscriber != NAME or receipt.id not in ids
    ]
    return history


def test_what_was_recorded_is_sound_and_not_trivial(history):
    report = check(history)
    assert report.sound, report.complaints
    assert report.counts["changes"] > 50
    assert report.counts["receipts"] > 250
    assert report.counts["duplicates"] > 20


@pytest.mark.parametrize("which", [0, 1])
def test_an_event_that_was_dropped_is_lost(history, which):
    dropped = pair(history)[which]
    report = check(without(history, dropped.id))
    assert "lost" in wrong(report)
    assert any(dropped.id in complaint for complaint in report.complaints)


def test_the_last_change_dropped_from_the_log_too_is_lost(history):
    last: dict[tuple[str, str], str] = {}
    for receipt in firsts(history):
        event = history.events[receipt.body]
        last[event.upstream_id, event.course_id] = receipt.id
    victim = next(iter(last.values()))
    history.log = [event for event in history.log if event.id != victim]
    history.receipts = [receipt for receipt in history.receipts if receipt.id != victim]
    assert wrong(check(history)) == {"lost"}


def test_a_change_that_nobody_was_told_of_is_lost(history):
    last = history.states[-1]
    history.states.append(msgspec.structs.replace(last, content="another", at=last.at + 1))
    assert wrong(check(history)) == {"lost"}


def test_a_receipt_that_was_doubled_is_counted_and_no_harm(history):
    before = check(history).counts["duplicates"]
    history.receipts.append(firsts(history)[0])
    report = check(history)
    assert report.sound
    assert report.counts["duplicates"] == before + 1


def test_an_event_that_was_doubled_under_another_id_is_invented(history):
    _, receipt = pair(history)
    event = history.events[receipt.body]
    again = msgspec.structs.replace(
        event, id="evt_again", sequence=event.sequence + 1, previous_sequence=event.sequence
    )
    history.events["again"] = again
    history.log.append(again)
    for name in history.subscribers:
        history.receipts.append(
            Receipt(name, history.receipts[-1].at, again.id, "again", acknowledged_at=0.0)
        )
    assert "invented" in wrong(check(history))


def test_an_event_that_is_in_no_log_is_invented_unless_the_server_forgot_it(history):
    receipt, _ = pair(history)
    history.log = [event for event in history.log if event.id != receipt.id]
    assert wrong(check(history)) == {"invented"}
    history.cuts = [receipt.at + 1]
    report = check(history)
    assert report.sound, report.complaints
    assert report.counts["forgotten"] > 0


def altered_content(history: History) -> None:
    receipt, _ = pair(history)
    event = history.events[receipt.body]
    history.events[receipt.body] = msgspec.structs.replace(event, content="never was")


def altered_bytes(history: History) -> None:
    receipt, _ = pair(history)
    other = "other bytes"
    history.events[other] = history.events[receipt.body]
    again = msgspec.structs.replace(receipt, body=other)
    history.receipts.insert(history.receipts.index(receipt) + 1, again)


def altered_signature(history: History) -> None:
    firsts(history)[0].verified = False


def altered_time(history: History) -> None:
    """It was received before the state that it shows was there."""
    _, receipt = pair(history)
    event = history.events[receipt.body]
    states = [
        state
        for state in history.states
        if (state.upstream_id, state.course_id) == (event.upstream_id, event.course_id)
    ]
    first = next(at for at, state in enumerate(states) if state.content == event.content)
    for state in states[first:]:
        index = history.states.index(state)
        later = msgspec.structs.replace(state, at=state.at + 1e6)
        history.states[index] = later


@pytest.mark.parametrize(
    ("alter", "what"),
    [
        (altered_content, "invented"),
        (altered_bytes, "differing_bytes"),
        (altered_signature, "unverified"),
        (altered_time, "invented"),
    ],
)
def test_what_was_altered_is_noticed(history, alter: Callable[[History], None], what: str):
    alter(history)
    assert what in wrong(check(history))


def test_events_that_were_swapped_are_out_of_order(history):
    first, second = pair(history)
    moved = [one for one in history.receipts if one.subscriber == NAME and one.id == second.id]
    rest = [one for one in history.receipts if not any(one is other for other in moved)]
    at = next(index for index, one in enumerate(rest) if one is first)
    for one in moved:
        one.at = first.at
    history.receipts = rest[:at] + moved + rest[at:]
    assert "out_of_order" in wrong(check(history))


def test_what_is_sent_before_its_predecessor_was_taken_is_out_of_order(history):
    first, _ = pair(history)
    for receipt in history.receipts:
        if receipt.subscriber == NAME and receipt.id == first.id:
            receipt.acknowledged_at = None
    assert "out_of_order" in wrong(check(history))


def test_what_was_never_acknowledged_is_lost_although_it_was_received(history):
    _, victim = pair(history)
    for receipt in history.receipts:
        if receipt.subscriber == NAME and receipt.id == victim.id:
            receipt.acknowledged_at = None
    report = check(history)
    assert "lost" in wrong(report)
    assert any(f"never took course.updated {victim.id}" in one for one in report.complaints)


def test_a_course_that_there_never_was_is_invented(history):
    receipt, _ = pair(history)
    event = history.events[receipt.body]
    history.states = [one for one in history.states if one.course_id != event.course_id]
    assert wrong(check(history)) == {"invented"}


def test_a_deletion_that_never_was_is_invented(history):
    receipt, _ = pair(history)
    event = history.events[receipt.body]
    history.events[receipt.body] = msgspec.structs.replace(event, content=None)
    assert "invented" in wrong(check(history))


def test_what_is_left_behind_and_given_up_is_told(history):
    history.leaked = ["cw:x has no lifetime"]
    history.dead = 1
    assert wrong(check(history)) == {"leaked_keys", "dead"}


def test_a_connection_used_again_and_an_odd_answer_not_taken_are_told(history):
    history.reused = 3
    history.refused = ["no poll completed"]
    history.crossed = 2
    report = check(history)
    assert wrong(report) == {"reused", "refused"}
    assert (report.counts["reused"], report.counts["refused"]) == (3, 1)
    assert report.summary()["crossed"] == 2


@pytest.mark.parametrize("mark", ["", "false", "0001-01-01T00:00:00Z", "2024-01-01T00:00:00Z", 0])
def test_a_course_with_a_mark_of_the_past_is_gone_and_nonsense_counts_as_one(mark):
    assert content_of({"id": "c", "remote_deleted_at": mark}) is None


def test_a_mark_of_a_time_to_come_says_nothing():
    live, marked = ({"id": "c", "remote_deleted_at": at} for at in (None, "2093-01-01T00:00:00Z"))
    assert content_of(marked) == content_of(live) is not None


def test_somebody_told_of_what_he_did_not_ask_for_is_noticed(history):
    history.subscribers[NAME] = []
    assert wrong(check(history)) == {"invented"}


def test_a_change_found_again_after_a_cut_is_counted_apart():
    """The server forgets an event that was delivered, and finds the change again."""
    history = History(subscribers={NAME: ["w:1"]})
    history.states = [State("w:1", "c", 0.0, "a"), State("w:1", "c", 1.0, "b")]
    from tests.chaos.history import Told

    told = [
        Told("evt_1", "course.created", "w:1", "c", 10, None, "a"),
        Told("evt_2", "course.updated", "w:1", "c", 20, 10, "b"),
        Told("evt_3", "course.updated", "w:1", "c", 30, 10, "b"),
    ]
    history.events = {event.id: event for event in told}
    history.receipts = [
        Receipt(NAME, 2.0 + at, event.id, event.id, acknowledged_at=2.1 + at)
        for at, event in enumerate(told)
    ]
    history.log = [told[0], told[2]]
    history.cuts = [3.5]
    report = check(history)
    assert report.sound, report.complaints
    assert (report.counts["forgotten"], report.counts["found_again"]) == (1, 1)
    history.log = told
    assert wrong(check(history)) == {"invented"}
