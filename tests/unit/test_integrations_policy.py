from __future__ import annotations

import itertools

import pytest

from service.domain.integrations import (
    DELTA_HORIZON_MS,
    MAX_BACKOFF_SECONDS,
    SWEEP_JITTER,
    Integration,
    IntegrationState,
    Problem,
    WalkingState,
    backoff_ms,
    next_walk,
    next_walk_at,
    state_of,
    sweep_due_at,
)

NOW = 1_795_424_001_123
HOUR, DAY = 3_600_000, 86_400_000
SWEEP = 21_600_000


def integration(**fields) -> Integration:
    return Integration(
        **{
            "id": "int_0123456789abcdefghjk",
            "name": "n",
            "upstream_id": "workday:1",
            "credential_id": "cred_a",
            "created_at": 1,
            "updated_at": 1,
        }
        | fields
    )


def walking(**fields) -> WalkingState:
    return WalkingState(
        **{
            "epoch": "ep_1",
            "baselined": True,
            "watermark": NOW - 60_000,
            "last_sweep_at": NOW - 1,
            "last_delta_at": NOW - 60_000,
        }
        | fields
    )


NEW = WalkingState(epoch="ep_1")


def problem(*, attention: bool) -> Problem:
    return Problem(code="X", message="m", since=1, attention=attention)


# --- state -------------------------------------------------------------------------------


def test_the_first_state_that_applies_is_shown():
    refused = problem(attention=True)

    assert state_of(integration(paused=True), walking(problem=refused)) is IntegrationState.PAUSED
    assert (
        state_of(integration(), walking(problem=refused, baselined=False)) is IntegrationState.ERROR
    )
    assert state_of(integration(), NEW) is IntegrationState.PENDING
    assert state_of(integration(), walking()) is IntegrationState.ACTIVE


def test_a_problem_that_goes_away_by_itself_is_no_error_state():
    passing = problem(attention=False)

    assert state_of(integration(), walking(problem=passing)) is IntegrationState.ACTIVE


# --- which walk is next ------------------------------------------------------------------


def test_the_first_walk_is_a_sweep_until_one_completed():
    assert next_walk(integration(), NEW, NOW) == "sweep"
    assert next_walk(integration(), walking(baselined=False), NOW) == "sweep"
    assert next_walk(integration(), walking(watermark=None), NOW) == "sweep"
    assert next_walk(integration(), walking(baselined=False, requested="delta"), NOW) == "sweep"


def just_swept() -> WalkingState:
    """A state whose next sweep is as far away as can be."""
    due = sweep_due_at(integration(), walking(last_sweep_at=NOW))
    return walking(last_sweep_at=due, watermark=due)


def test_between_sweeps_walks_are_deltas():
    state = just_swept()
    due = sweep_due_at(integration(), state)

    assert next_walk(integration(), state, due - 1) == "delta"
    assert next_walk(integration(), state, due) == "sweep"


@pytest.mark.parametrize("kind", ["delta", "sweep"])
def test_a_walk_that_was_asked_for_comes_next(kind):
    assert next_walk(integration(), walking(requested=kind, last_sweep_at=0), NOW) == kind
    state = just_swept()
    assert next_walk(integration(), state, state.last_sweep_at) == "delta"


def test_after_thirteen_days_without_success_only_a_sweep_will_do():
    rare = integration(sweep_interval_seconds=30 * 86_400)
    state = walking(last_sweep_at=sweep_due_at(rare, walking(last_sweep_at=NOW)))
    at = state.watermark + DELTA_HORIZON_MS
    state = walking(last_sweep_at=at, watermark=state.watermark)
    assert DELTA_HORIZON_MS == 13 * DAY
    assert sweep_due_at(rare, state) > at + 1

    assert next_walk(rare, state, at) == "delta"
    assert next_walk(rare, state, at + 1) == "sweep"


def test_after_thirteen_days_a_delta_that_was_asked_for_is_a_sweep():
    state = walking(requested="delta", watermark=NOW - DELTA_HORIZON_MS - 1)

    assert next_walk(integration(), state, NOW) == "sweep"


# --- when --------------------------------------------------------------------------------


@pytest.mark.parametrize("interval_seconds", [60, 3_600, 21_600, 86_400, 604_800])
@pytest.mark.parametrize("identifier", ["int_a", "int_0123456789abcdefghjk", "int_zzzzzzzzzz"])
def test_the_next_sweep_is_at_most_one_interval_away(interval_seconds, identifier):
    one = integration(id=identifier, sweep_interval_seconds=interval_seconds)
    interval = interval_seconds * 1000
    for last in range(NOW, NOW + 3 * interval, interval // 7):
        due = sweep_due_at(one, walking(last_sweep_at=last))

        assert last < due <= last + interval * (1 + SWEEP_JITTER)


def test_sweeps_keep_their_rhythm_however_late_one_ends():
    one = integration()
    due = sweep_due_at(one, walking(last_sweep_at=NOW))
    following = sweep_due_at(one, walking(last_sweep_at=due))

    assert abs(following - due - SWEEP) <= SWEEP * SWEEP_JITTER
    for late in (1, SWEEP // 2, int(SWEEP * (1 - SWEEP_JITTER)) - 1):
        assert sweep_due_at(one, walking(last_sweep_at=due + late)) == following


def test_a_missed_sweep_is_not_replayed():
    one = integration()
    due = sweep_due_at(one, walking(last_sweep_at=NOW))
    late = due + 5 * SWEEP + SWEEP // 2

    assert late < sweep_due_at(one, walking(last_sweep_at=late)) <= late + SWEEP


def test_one_sweep_after_the_other_comes_a_little_earlier_or_later():
    one = integration()
    moments = [sweep_due_at(one, walking(last_sweep_at=NOW + n * SWEEP)) for n in range(50)]
    apart = [after - before for before, after in itertools.pairwise(moments)]

    assert len(set(apart)) > 40
    assert all(abs(one - SWEEP) <= SWEEP * SWEEP_JITTER for one in apart)


def test_integrations_registered_together_do_not_sweep_together():
    due = [
        sweep_due_at(integration(id=f"int_{number:020}"), walking(last_sweep_at=NOW))
        for number in range(100)
    ]

    assert len(set(due)) == 100


def test_an_integration_that_never_swept_is_due_at_once():
    assert sweep_due_at(integration(), NEW) == 0
    assert next_walk(integration(), walking(last_sweep_at=None), NOW) == "sweep"


def test_after_a_walk_the_next_delta_is_an_interval_away():
    state = just_swept()
    now = state.last_sweep_at

    assert next_walk_at(integration(), state, now) == now + 60_000
    hourly = integration(delta_interval_seconds=3_600)
    assert next_walk_at(hourly, state, now) == now + HOUR


def test_a_sweep_that_falls_due_earlier_comes_first():
    state = just_swept()
    due = sweep_due_at(integration(), state)

    assert next_walk_at(integration(), state, due - 1_000) == due
    assert next_walk(integration(), state, due) == "sweep"


def test_an_overdue_sweep_is_due_now_and_not_in_the_past():
    assert next_walk_at(integration(), walking(last_sweep_at=0), NOW) == NOW


def test_the_walk_after_a_restart_of_the_clock_is_never_further_than_a_delta():
    ahead = walking(last_sweep_at=NOW + 10 * DAY)

    assert next_walk_at(integration(), ahead, NOW) == NOW + 60_000


# --- backing off -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failures", "ceiling_seconds"),
    [(1, 5), (2, 10), (3, 20), (8, 640), (9, 900), (50, 900), (10_000, 900)],
)
def test_backoff_doubles_up_to_a_limit_and_is_fully_jittered(failures, ceiling_seconds):
    assert backoff_ms(failures, 0.0) == 1_000
    assert backoff_ms(failures, 0.5) == 1_000 + ceiling_seconds * 500
    assert backoff_ms(failures, 0.999_999) < 1_000 + ceiling_seconds * 1_000
    assert ceiling_seconds <= MAX_BACKOFF_SECONDS
