"""How a turn of a poll ends: complete, interrupted, or failed."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from service.domain.errors import (
    FingerprintVersionError,
    UpstreamAuthError,
    UpstreamBusyError,
    UpstreamInputError,
    UpstreamModelUnavailableError,
    UpstreamNotFoundError,
    UpstreamNotReadyError,
    UpstreamPageError,
    UpstreamPagingError,
    UpstreamTargetRefusedError,
    UpstreamUnavailableError,
)
from service.domain.polling.failure import after_failure
from service.domain.polling.integration import UNCONFIRMED_CODE, Integration, PollingState, Problem
from service.domain.polling.intervals import FULL_RETRY_SECONDS, SKEW_REPORTED_MS, UNREADABLE_MS
from service.domain.polling.observations import UNCONFIRMED_FULL_POLLS, Observed
from service.domain.polling.progress import FULL_PATIENCE_MS, RESUMABLE_MS, PollProgress, begin
from service.domain.polling.turn_end import after_completion, after_interruption

NOW = 1_795_424_001_123
INTEGRATION = Integration(
    id="int_0123456789abcdefghjk",
    name="n",
    upstream_id="workday:1",
    credential_id="cred_a",
    created_at=1,
    updated_at=1,
)
UNCONFIRMED = Observed(
    unconfirmed={"empty": 3},
    unconfirmed_full_polls=UNCONFIRMED_FULL_POLLS,
    unconfirmed_since=NOW - 9_000,
)
PASSING = Problem(code="UpstreamUnavailable", message="m", since=NOW - 5_000, attention=False)
LASTING = Problem(code="UpstreamAuth", message="m", since=NOW - 5_000, attention=True)
TRANSIENT = [UpstreamBusyError("e"), UpstreamUnavailableError("e"), UpstreamPageError("e")]
FINAL = [
    UpstreamAuthError("e"),
    UpstreamNotFoundError("e"),
    UpstreamTargetRefusedError("e"),
    UpstreamModelUnavailableError("e"),
    UpstreamNotReadyError("e"),
    UpstreamPagingError("e"),
    FingerprintVersionError(b"9"),
]


def state(**fields) -> PollingState:
    known = {"epoch": "ep_1", "baselined": True, "watermark": NOW, "last_full_at": NOW - 1}
    return PollingState(**known | fields)


def poll(kind="delta", **fields) -> PollProgress:
    return msgspec.structs.replace(begin("poll_1", kind, "ep_1", NOW, NOW), **fields)


def fail(error, *, known=None, progress=None, advanced=False, now=NOW, chance=0.5, **fields):
    return after_failure(
        INTEGRATION,
        state(problem=known, **fields),
        progress or poll(),
        error,
        advanced=advanced,
        now_ms=now,
        unit_random=chance,
    )


# --- failed --------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", TRANSIENT, ids=lambda one: type(one).__name__)
def test_what_passes_by_itself_leaves_the_poll_where_it_is(error):
    failed = fail(error, progress=poll(cursor="c", pages=3))

    assert failed.progress is not None
    assert (failed.progress.cursor, failed.progress.error) == ("c", failed.error)
    assert not failed.problem.attention
    assert failed.change.failures == 1
    assert failed.change.full_retry_at is UNSET


@pytest.mark.parametrize("error", FINAL, ids=lambda one: type(one).__name__)
def test_what_does_not_pass_ends_the_poll(error):
    assert fail(error).progress is None


@given(
    st.sampled_from(TRANSIENT),
    st.sampled_from(["delta", "full"]),
    st.integers(0, 2 * RESUMABLE_MS),
    st.floats(0, 1, exclude_max=True),
    st.booleans(),
)
def test_a_poll_goes_on_only_within_its_patience(error, kind, passed, chance, baselined):
    failed = fail(error, progress=poll(kind), now=NOW + passed, chance=chance, baselined=baselined)
    full = kind == "full" and baselined
    patience = FULL_PATIENCE_MS if full else RESUMABLE_MS

    assert (failed.progress is None) == (patience - passed < 1_000)
    if failed.progress is not None:
        assert passed + failed.wait_ms <= patience
    else:
        assert "; stopped after" in failed.error
    assert (failed.change.full_retry_at is not UNSET) == (full and failed.progress is None)


def test_a_full_poll_that_is_given_up_lets_a_delta_begin_at_once():
    failed = fail(UpstreamUnavailableError("e"), progress=poll("full"), now=NOW + FULL_PATIENCE_MS)
    retry = NOW + FULL_PATIENCE_MS + FULL_RETRY_SECONDS * 1000
    assert (failed.wait_ms, failed.change.full_retry_at) == (0, retry)


def test_a_wait_that_is_asked_for_and_too_long_gives_the_poll_up():
    failed = fail(UpstreamUnavailableError("e", retry_after=900), progress=poll("full"))
    assert failed.progress is None
    assert failed.wait_ms == 900_000
    assert "requests a wait of 15 minutes" in failed.error


def test_a_refused_cursor_starts_the_poll_again_once():
    first = fail(UpstreamInputError("e"), progress=poll(cursor="c"))
    assert first.progress is not None
    assert (first.progress.cursor, first.progress.restarts, first.wait_ms) == (None, 1, 0)
    again = msgspec.structs.replace(first.progress, cursor="c")
    assert fail(UpstreamInputError("e"), progress=again).progress is None


@pytest.mark.parametrize(
    ("error", "size"),
    [
        (UpstreamPageError("e"), 5),
        (UpstreamUnavailableError("e"), 10),
        (UpstreamBusyError("e"), 10),
    ],
)
def test_pages_become_smaller_where_one_did_not_arrive(error, size):
    assert fail(error, progress=poll(page_size=10)).progress.page_size == size


def test_failures_add_up_until_the_poll_gets_on():
    error = UpstreamUnavailableError("e")
    assert fail(error, failures=4).change.failures == 5
    assert fail(error, failures=4, advanced=True).change.failures == 1
    assert fail(UpstreamAuthError("e"), failures=4, advanced=True).change.failures == 5


def test_a_problem_begins_with_the_first_failure_in_a_row():
    assert fail(UpstreamUnavailableError("e"), known=PASSING).problem.since == PASSING.since
    assert fail(UpstreamUnavailableError("e")).problem.since == NOW


def test_a_passing_error_does_not_replace_a_problem_that_needs_a_person():
    assert fail(UpstreamUnavailableError("e"), known=LASTING).problem == LASTING
    after = fail(UpstreamUnavailableError("e"), known=LASTING, advanced=True)
    assert after.problem.code == "UpstreamUnavailable"
    standing = fail(UpstreamUnavailableError("e"), observed=UNCONFIRMED)
    assert standing.problem.code == UNCONFIRMED_CODE


def test_a_page_that_stays_unreadable_needs_a_person_after_a_while():
    error = UpstreamPageError("e")
    known = msgspec.structs.replace(PASSING, code="UpstreamPage", since=NOW - UNREADABLE_MS)
    fresh = msgspec.structs.replace(known, since=NOW - UNREADABLE_MS + 1_500)

    assert fail(error, known=known).problem.attention
    assert not fail(error, known=msgspec.structs.replace(known, code="X")).problem.attention
    soon = fail(error, known=fresh, chance=0.99)
    assert not soon.problem.attention
    assert soon.wait_ms <= 1_500


# --- complete ------------------------------------------------------------------------------------


def test_a_complete_poll_clears_the_problem_and_moves_the_watermark():
    completed = after_completion(INTEGRATION, state(problem=PASSING), poll(watermark=7), NOW)

    change = completed.change
    assert (change.watermark, change.failures, change.problem) == (7, 0, None)
    assert (change.last_delta_at, change.last_full_at) == (NOW, UNSET)
    assert change.baselined is UNSET
    assert completed.note is None
    assert 0 < completed.wait_ms <= INTEGRATION.delta_interval_seconds * 1000


def test_the_first_full_poll_is_the_baseline():
    first = after_completion(INTEGRATION, state(baselined=False), poll("full"), NOW).change
    assert (first.baselined, first.last_full_at, first.last_delta_at) == (True, NOW, UNSET)
    assert after_completion(INTEGRATION, state(), poll("full"), NOW).change.baselined is UNSET


def test_a_delta_leaves_the_problem_that_full_polls_fail_with():
    failing = state(problem=PASSING, full_retry_at=NOW + 1)
    delta = after_completion(INTEGRATION, failing, poll("delta"), NOW).change
    assert (delta.problem, delta.full_retry_at) == (UNSET, NOW + 1)
    full = after_completion(INTEGRATION, failing, poll("full"), NOW).change
    assert (full.problem, full.full_retry_at) == (None, None)


@pytest.mark.parametrize(
    ("skew", "kept"),
    [(None, None), (0, None), (SKEW_REPORTED_MS, None), (-SKEW_REPORTED_MS - 1,) * 2],
)
def test_only_a_large_skew_is_kept(skew, kept):
    assert after_completion(INTEGRATION, state(), poll(skew_ms=skew), NOW).change.clock_skew_ms == (
        kept
    )


def test_full_polls_that_confirm_nothing_need_a_person():
    before = msgspec.structs.replace(UNCONFIRMED, unconfirmed_full_polls=UNCONFIRMED_FULL_POLLS - 1)
    progress = poll("full", unconfirmed={"empty": 3}, nameless=2)
    completed = after_completion(INTEGRATION, state(observed=before, held=4), progress, NOW)

    assert completed.standing is not None
    assert completed.change.problem == completed.standing
    assert completed.standing.code == UNCONFIRMED_CODE
    assert completed.note is not None
    for part in ("3 changes could not", "2 records without an id", "4 changes are held"):
        assert part in completed.note


# --- interrupted ---------------------------------------------------------------------------------


def test_a_turn_that_committed_nothing_changes_nothing():
    change, standing = after_interruption(state(problem=PASSING, failures=3), None, advanced=False)
    assert all(getattr(change, name) is UNSET for name in change.__struct_fields__)
    assert standing is None


def test_a_turn_that_got_on_ends_a_problem_unless_full_polls_still_fail_with_it():
    change, _ = after_interruption(state(problem=PASSING), None, advanced=True)
    assert (change.failures, change.problem) == (0, None)
    change, _ = after_interruption(
        state(problem=PASSING, full_retry_at=NOW + 1), None, advanced=True
    )
    assert (change.failures, change.problem) == (0, UNSET)
    change, standing = after_interruption(state(observed=UNCONFIRMED), None, advanced=True)
    assert change.problem == standing is not None


def test_a_wait_for_memory_leaves_a_problem_that_needs_a_person():
    memory = Problem(code="RedisMemory", message="m", since=NOW, attention=False)
    change, _ = after_interruption(state(problem=PASSING), memory, advanced=False)
    assert change.problem == msgspec.structs.replace(memory, since=PASSING.since)
    change, _ = after_interruption(state(problem=LASTING), memory, advanced=False)
    assert change.problem is UNSET
    change, _ = after_interruption(state(problem=LASTING), memory, advanced=True)
    assert change.problem == memory
