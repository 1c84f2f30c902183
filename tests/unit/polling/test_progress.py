"""Each step of a poll from one state of its progress to the next."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.courses.change import Judgement, Verdict
from service.domain.polling.integration import PollRecord
from service.domain.polling.intervals import MAX_SKEW_MS
from service.domain.polling.progress import (
    MIN_PAGE_SIZE,
    PAGE_SIZE,
    PAGES_BEFORE_LARGER,
    RESUMABLE_MS,
    PageSummary,
    PollProgress,
    after_absences,
    after_changes,
    after_commit,
    after_confirmation,
    after_error,
    after_page,
    after_part,
    after_wait,
    begin,
    for_request,
    in_turn,
    restarted,
    resumable,
    with_smaller_pages,
    with_unconfirmed,
    with_waiting,
)

NOW = 1_795_424_001_123
KINDS = st.sampled_from(["delta", "full"])


def poll(kind="full", **fields) -> PollProgress:
    return msgspec.structs.replace(begin("poll_1", kind, "ep_1", NOW, NOW), **fields)


def a_page(**fields) -> PageSummary:
    summary = {"next": "c", "date_ms": NOW, "age_ms": 0, "records": 3, "live": ["a", "b"]}
    return PageSummary(**summary | fields)


def changed_fields(before: PollProgress, after: PollProgress) -> set[str]:
    return {
        name for name in before.__struct_fields__ if getattr(before, name) != getattr(after, name)
    }


# --- the beginning ---------------------------------------------------------------------------


def test_a_delta_looks_ten_minutes_behind_the_watermark():
    poll = begin("poll_1", "delta", "ep_1", NOW - 60_000, NOW)

    assert poll.updated_after == NOW - 660_000
    assert (poll.started_at, poll.watermark, poll.cursor) == (NOW, NOW, None)
    assert poll.phase == "pages"


def test_a_full_poll_asks_for_everything():
    assert begin("poll_1", "full", "ep_1", NOW - 60_000, NOW).updated_after is None


def test_a_broken_off_poll_is_resumed_while_it_is_fresh_and_of_this_epoch():
    poll = begin("poll_1", "full", "ep_1", None, NOW)

    assert resumable(poll, "ep_1", NOW + RESUMABLE_MS)
    assert not resumable(poll, "ep_1", NOW + RESUMABLE_MS + 1)
    assert not resumable(poll, "ep_2", NOW)


def test_progress_reads_back_as_it_was_stored():
    poll = msgspec.structs.replace(
        begin("poll_1", "delta", "ep_1", NOW, NOW),
        cursor="é=",
        controls=("c1",),
        verdicts={"created": 3},
    )

    assert msgspec.json.decode(msgspec.json.encode(poll), type=PollProgress) == poll


def test_a_poll_is_listed_with_what_it_did():
    poll = msgspec.structs.replace(
        begin("poll_1", "full", "ep_1", None, NOW),
        pages=2,
        records=300,
        changes=4,
        verdicts={"created": 4, "unchanged": 296},
    )

    listed = poll.record("failed", finished_at=NOW + 5, error="why")

    assert (listed.id, listed.kind, listed.state, listed.error) == (
        "poll_1",
        "full",
        "failed",
        "why",
    )
    assert (listed.started_at, listed.finished_at) == (NOW, NOW + 5)
    assert (listed.pages, listed.records, listed.changes) == (2, 300, 4)
    assert listed.verdicts == {"created": 4, "unchanged": 296}


# --- pages ---------------------------------------------------------------------------------------


def test_a_page_adds_its_records_and_moves_the_cursor():
    after = after_page(poll(), a_page(not_live=1, nameless=2), NOW)

    assert (after.cursor, after.pages, after.records) == ("c", 1, 3)
    assert (after.not_live, after.nameless, after.controls) == (1, 2, ("a", "b"))
    assert after.phase == "pages"


@given(
    KINDS,
    st.lists(
        st.tuples(st.integers(0, 250), st.integers(0, 20), st.integers(0, 5)),
        min_size=1,
        max_size=40,
    ),
)
def test_pages_add_up(kind, pages):
    progress = poll(kind)
    for number, (records, not_live, nameless) in enumerate(pages):
        last = number == len(pages) - 1
        summary = a_page(
            next=None if last else f"c{number}",
            records=records,
            not_live=not_live,
            nameless=nameless,
        )
        before, progress = progress, after_page(progress, summary, NOW + number)
        assert changed_fields(before, progress) <= {
            "cursor", "landmark", "phase", "pages", "page_size", "records", "not_live",
            "nameless", "controls", "watermark", "skew_ms", "cached_ms",
        }  # fmt: skip
        assert progress.page_size <= PAGE_SIZE
    assert progress.pages == len(pages)
    assert (progress.records, progress.not_live, progress.nameless) == tuple(
        map(sum, zip(*pages, strict=True))
    )
    assert progress.phase == ("absences" if kind == "full" else "confirmation")


@given(st.integers(1, 60), st.integers(1, 60))
def test_pages_in_circles_meet_the_landmark(lead, length):
    """Brent's algorithm, with cursors that come round after `lead` pages."""
    progress = poll()
    for number in range(4 * (lead + length)):
        cursor = number if number < lead else lead + (number - lead) % length
        if f"c{cursor}" in (progress.cursor, progress.landmark):
            return
        progress = after_page(progress, a_page(next=f"c{cursor}"), NOW)
    pytest.fail("the circle was not noticed")


def test_smaller_pages_grow_again():
    progress = poll(page_size=MIN_PAGE_SIZE)
    sizes = []
    for _ in range(6 * PAGES_BEFORE_LARGER):
        progress = after_page(progress, a_page(), NOW)
        sizes.append(progress.page_size)
    assert sizes[PAGES_BEFORE_LARGER - 2 : PAGES_BEFORE_LARGER] == [10, 20]
    assert sizes[-1] == PAGE_SIZE


@given(st.integers(-2 * MAX_SKEW_MS, 2 * MAX_SKEW_MS) | st.none(), st.integers(0, 60_000))
def test_the_watermark_is_the_earlier_of_two_plausible_clocks(skew, age):
    date = None if skew is None else NOW + skew - age
    after = after_page(poll(), a_page(date_ms=date, age_ms=age), NOW)

    assert after.watermark <= NOW
    assert NOW - after.watermark <= MAX_SKEW_MS
    assert after.skew_ms == skew
    assert after.cached_ms == age
    later = after_page(after, a_page(date_ms=NOW - 1, age_ms=7), NOW + 1)
    assert (later.watermark, later.skew_ms, later.cached_ms) == (after.watermark, skew, age)


def test_changes_are_sampled_by_path():
    judged = [
        Judgement(course_id="a", verdict=Verdict.UPDATED, changed=("origin_id",)),
        Judgement(course_id="b", verdict=Verdict.CREATED),
    ]
    after = after_changes(poll(), judged, changed={"origin_id": 1}, waiting=True)

    assert (after.changed, after.waiting) == ({"origin_id": 1}, True)
    assert {path: len(sample) for path, sample in after.samples.items()} == {"origin_id": 1}


# --- the other steps -----------------------------------------------------------------------------


def test_a_request_gives_the_poll_its_id():
    request = PollRecord(id="poll_2", kind="delta", state="queued", requested_at=NOW - 5)
    after = for_request(poll(), request)
    assert (after.poll_id, after.requested_at, after.kind) == ("poll_2", NOW - 5, "full")


@pytest.mark.parametrize(
    ("step", "fields"),
    [
        (after_absences, {"phase"}),
        (with_waiting, {"waiting"}),
        (after_confirmation, set()),
        (in_turn, set()),
        (lambda progress: after_error(progress, "why"), {"error"}),
        (lambda progress: with_unconfirmed(progress, None, 3), set()),
        (lambda progress: with_unconfirmed(progress, "empty", 0), set()),
        (lambda progress: with_unconfirmed(progress, "empty", 2), {"unconfirmed"}),
        (lambda progress: with_smaller_pages(progress, MIN_PAGE_SIZE), {"page_size"}),
        (lambda progress: after_part(progress, 4), {"step", "changes"}),
    ],
)
def test_a_step_changes_only_its_own_fields(step, fields):
    before = poll()
    assert changed_fields(before, step(before)) == fields


def test_unconfirmed_changes_add_up_by_reason():
    progress = with_unconfirmed(poll(unconfirmed={"empty": 1}), "empty", 2)
    assert with_unconfirmed(progress, "refused", 1).unconfirmed == {"empty": 3, "refused": 1}


@given(st.lists(st.integers(0, 9), max_size=5), st.integers(0, 9))
def test_a_step_in_parts_ends_where_it_was_planned_to(parts, last):
    before = progress = poll(verdicts={"created": 1}, error="earlier", changes=2)
    planned = after_page(before, a_page(), NOW)
    for events in parts:
        progress = after_part(progress, events)
        assert changed_fields(before, progress) <= {"step", "changes"}
    after = after_commit(
        progress, planned, events=last, verdicts=Counter(created=2, updated=1), now_ms=NOW + 9
    )

    assert after.step == len(parts) + 1
    assert after.changes == 2 + sum(parts) + last
    assert after.verdicts == {"created": 3, "updated": 1}
    assert (after.updated_at, after.error) == (NOW + 9, None)
    assert changed_fields(planned, after) <= {"step", "changes", "verdicts", "updated_at", "error"}


@pytest.mark.parametrize(
    ("slot", "updated_at"), [(0, NOW), (NOW + 5_000, NOW + 60_000)], ids=["not in line", "in line"]
)
def test_only_a_wait_in_the_line_does_not_make_a_poll_older(slot, updated_at):
    after = after_wait(poll(), slot=slot, reason="why", until_ms=NOW + 60_000)
    assert (after.slot, after.error, after.updated_at) == (slot, "why", updated_at)


def test_a_restarted_poll_keeps_what_it_has_counted():
    progress = poll(cursor="c", landmark="b", changed={"provider": 3}, records=7, waiting=True)
    after = restarted(progress)
    assert (after.cursor, after.landmark, after.changed, after.restarts) == (None, None, {}, 1)
    assert (after.records, after.waiting) == (7, True)


def test_pages_are_halved_down_to_a_bound():
    sizes = []
    progress = poll()
    for _ in range(6):
        progress = with_smaller_pages(progress, MIN_PAGE_SIZE)
        sizes.append(progress.page_size)
    assert sizes == [125, 62, 31, 15, 10, 10]
