"""How long a failing poll is patient, whose clock is believed, and what a request can carry."""

from __future__ import annotations

import itertools
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.polling.id_requests import MAX_LIST_BYTES, MOST_IDS, can_be_asked, ends, fitting
from service.domain.polling.integration import backoff_ms, believed_date, next_try_ms
from service.domain.polling.intervals import MAX_BACKOFF_SECONDS, MAX_SKEW_MS
from service.domain.polling.progress import FULL_PATIENCE_MS, RESUMABLE_MS, controls_after

MINUTE = 60_000
NOW = 1_795_000_000_000


# --- patience -----------------------------------------------------------------------------------


@given(
    st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=40),
    st.sampled_from([FULL_PATIENCE_MS, RESUMABLE_MS]),
    st.integers(1, 20),
)
def test_a_failing_poll_ends_just_when_its_patience_does(chances, patience, failures):
    passed = 0
    for at, chance in zip(range(patience), itertools.cycle(chances), strict=False):
        wait = next_try_ms(backoff_ms(failures + at, chance), 0, patience - passed)
        if wait is None:
            break
        passed += wait
        assert passed <= patience
    else:
        pytest.fail("it is never given up")
    assert patience - 1_000 < passed <= patience


@pytest.mark.parametrize(
    ("wait", "asked", "left", "expected"),
    [
        (5_000, 0, 10 * MINUTE, 5_000),
        (15 * MINUTE, 0, 10 * MINUTE, 10 * MINUTE),
        (15 * MINUTE, 0, 1_000, 1_000),
        (1_000, 0, 999, None),
        (1_000, 0, 0, None),
        (1_000, 0, -1, None),
        (5_000, 2 * MINUTE, 10 * MINUTE, 2 * MINUTE),  # what was asked for is kept to
        (5_000, 10 * MINUTE, 10 * MINUTE, 10 * MINUTE),
        (5_000, 10 * MINUTE + 1, 10 * MINUTE, None),  # or the poll given up, not the wait
        (5_000, 15 * MINUTE, MINUTE, None),
    ],
)
def test_a_backoff_never_exceeds_what_is_left_and_an_asked_wait_is_never_cut(
    wait, asked, left, expected
):
    assert next_try_ms(wait, asked, left) == expected


def test_a_backoff_may_be_longer_than_the_patience_of_a_full_poll():
    """Which is why it has to be bounded by that."""
    assert MAX_BACKOFF_SECONDS * 1000 > FULL_PATIENCE_MS


# --- clocks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("off", [0, 1, -1, MAX_SKEW_MS, -MAX_SKEW_MS])
def test_a_date_within_the_bound_is_believed(off):
    assert believed_date(NOW + off, NOW) == NOW + off


@pytest.mark.parametrize("date", [None, 0, -1, NOW + MAX_SKEW_MS + 1, NOW - MAX_SKEW_MS - 1, 1e18])
def test_any_other_is_not(date):
    assert believed_date(date, NOW) is None


# --- ids ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "course_id", ["a", "A/b", "a b", "ä", "a:b|c", "%2C", "{}", "x" * 800, "課" * 88]
)
def test_what_a_list_carries(course_id):
    assert can_be_asked(course_id)


@pytest.mark.parametrize(
    "course_id",
    [
        "",
        ",",
        "a,b",
        " a",
        "a ",
        "\ta",
        "a\n",
        "a\x00b",
        "\u00a0a",
        "a\u200b",
        "x" * 801,
        "課" * 90,
    ],
)
def test_what_no_list_carries(course_id):
    assert not can_be_asked(course_id)


ids = st.text(min_size=1, max_size=60).filter(can_be_asked)


@given(st.lists(ids, max_size=150), st.lists(ids, max_size=3))
def test_a_request_is_bounded_and_gets_on(identifiers, controls):
    found = fitting(identifiers, controls)
    assert found == identifiers[: len(found)]
    assert bool(found) == bool(identifiers)
    together = [*controls, *found]
    assert len(together) <= MOST_IDS
    assert len(quote(",".join(together), safe="")) <= MAX_LIST_BYTES


def test_a_request_is_as_full_as_it_may_be():
    assert len(fitting(["x" * 24] * 200)) == MOST_IDS
    assert len(fitting(["x" * 800] * 200, ["x" * 800] * 3)) == 1


@given(st.lists(st.text(min_size=1, max_size=5), max_size=8))
def test_the_ends_of_a_page_are_those_that_can_be_asked_for(course_ids):
    found = ends([one.encode() for one in course_ids])
    usable = [one for one in course_ids if can_be_asked(one)] or course_ids
    assert found == ([usable[0], usable[-1]] if usable else [])


@pytest.mark.parametrize(
    ("pages", "controls"),
    [
        ([["a", "b"], ["c"]], ("a", "c")),
        ([["a"]], ("a",)),
        ([["a,b"], ["c"], ["d", "e,f"]], ("c", "d")),
        ([["a,b"], []], ("a,b",)),
        ([["a,b"], ["c,d"]], ("a,b", "c,d")),
        ([["a,b"], ["c"], ["d,e"]], ("c",)),
        ([[], []], ()),
    ],
)
def test_controls_are_the_first_and_last_that_can_be_asked_for(pages, controls):
    found: tuple[str, ...] = ()
    for page in pages:
        found = controls_after(found, page)
    assert found == controls
