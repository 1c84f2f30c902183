from __future__ import annotations

import itertools

import pytest

from service.domain.polling.integration import (
    Integration,
    IntegrationState,
    PollingState,
    Problem,
    backoff_ms,
    full_due_at,
    next_poll,
    next_poll_at,
    state_of,
)
from service.domain.polling.intervals import DELTA_HORIZON_MS, FULL_JITTER, MAX_BACKOFF_SECONDS

NOW = 1_795_424_001_123
HOUR, DAY = 3_600_000, 86_400_000
FULL_POLL = 21_600_000


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


def polling(**fields) -> PollingState:
    return PollingState(
        **{
            "epoch": "ep_1",
            "baselined": True,
            "watermark": NOW - 60_000,
            "last_full_at": NOW - 1,
            "last_delta_at": NOW - 60_000,
        }
        | fields
    )


NEW = PollingState(epoch="ep_1")


def problem(*, attention: bool) -> Problem:
    return Problem(code="X", message="m", since=1, attention=attention)


# --- state -------------------------------------------------------------------------------


def test_the_first_state_that_applies_is_shown():
    refused = problem(attention=True)

    assert state_of(integration(paused=True), polling(problem=refused)) is IntegrationState.PAUSED
    assert (
        state_of(integration(), polling(problem=refused, baselined=False)) is IntegrationState.ERROR
    )
    assert state_of(integration(), NEW) is IntegrationState.PENDING
    assert state_of(integration(), polling()) is IntegrationState.ACTIVE


def test_a_problem_that_goes_away_by_itself_is_no_error_state():
    passing = problem(attention=False)

    assert state_of(integration(), polling(problem=passing)) is IntegrationState.ACTIVE


# --- which poll is next ------------------------------------------------------------------


def test_the_first_poll_is_a_full_poll_until_one_completed():
    assert next_poll(integration(), NEW, NOW) == "full"
    assert next_poll(integration(), polling(baselined=False), NOW) == "full"
    assert next_poll(integration(), polling(watermark=None), NOW) == "full"
    assert next_poll(integration(), polling(baselined=False, requested="delta"), NOW) == "full"


def just_swept() -> PollingState:
    """A state whose next full poll is as far away as can be."""
    due = full_due_at(integration(), polling(last_full_at=NOW))
    return polling(last_full_at=due, watermark=due)


def test_between_full_polls_polls_are_deltas():
    state = just_swept()
    due = full_due_at(integration(), state)

    assert next_poll(integration(), state, due - 1) == "delta"
    assert next_poll(integration(), state, due) == "full"


@pytest.mark.parametrize("kind", ["delta", "full"])
def test_a_poll_that_was_asked_for_comes_next(kind):
    assert next_poll(integration(), polling(requested=kind, last_full_at=0), NOW) == kind
    state = just_swept()
    assert next_poll(integration(), state, state.last_full_at) == "delta"


def test_after_thirteen_days_without_success_only_a_full_poll_will_do():
    rare = integration(full_interval_seconds=30 * 86_400)
    state = polling(last_full_at=full_due_at(rare, polling(last_full_at=NOW)))
    at = state.watermark + DELTA_HORIZON_MS
    state = polling(last_full_at=at, watermark=state.watermark)
    assert DELTA_HORIZON_MS == 13 * DAY
    assert full_due_at(rare, state) > at + 1

    assert next_poll(rare, state, at) == "delta"
    assert next_poll(rare, state, at + 1) == "full"


def test_after_thirteen_days_a_delta_that_was_asked_for_is_a_full_poll():
    state = polling(requested="delta", watermark=NOW - DELTA_HORIZON_MS - 1)

    assert next_poll(integration(), state, NOW) == "full"


# --- when --------------------------------------------------------------------------------


@pytest.mark.parametrize("interval_seconds", [60, 3_600, 21_600, 86_400, 604_800])
@pytest.mark.parametrize("identifier", ["int_a", "int_0123456789abcdefghjk", "int_zzzzzzzzzz"])
def test_the_next_full_poll_is_at_most_one_interval_away(interval_seconds, identifier):
    one = integration(id=identifier, full_interval_seconds=interval_seconds)
    interval = interval_seconds * 1000
    for last in range(NOW, NOW + 3 * interval, interval // 7):
        due = full_due_at(one, polling(last_full_at=last))

        assert last < due <= last + interval * (1 + FULL_JITTER)


def test_full_polls_keep_their_rhythm_however_late_one_ends():
    one = integration()
    due = full_due_at(one, polling(last_full_at=NOW))
    following = full_due_at(one, polling(last_full_at=due))

    assert abs(following - due - FULL_POLL) <= FULL_POLL * FULL_JITTER
    for late in (1, FULL_POLL // 2, int(FULL_POLL * (1 - FULL_JITTER)) - 1):
        assert full_due_at(one, polling(last_full_at=due + late)) == following


def test_a_missed_full_poll_is_not_replayed():
    one = integration()
    due = full_due_at(one, polling(last_full_at=NOW))
    late = due + 5 * FULL_POLL + FULL_POLL // 2

    assert late < full_due_at(one, polling(last_full_at=late)) <= late + FULL_POLL


def test_one_full_poll_after_the_other_comes_a_little_earlier_or_later():
    one = integration()
    moments = [full_due_at(one, polling(last_full_at=NOW + n * FULL_POLL)) for n in range(50)]
    apart = [after - before for before, after in itertools.pairwise(moments)]

    assert len(set(apart)) > 40
    assert all(abs(one - FULL_POLL) <= FULL_POLL * FULL_JITTER for one in apart)


def test_integrations_registered_together_do_not_full_poll_together():
    due = [
        full_due_at(integration(id=f"int_{number:020}"), polling(last_full_at=NOW))
        for number in range(100)
    ]

    assert len(set(due)) == 100


def test_an_integration_that_never_swept_is_due_at_once():
    assert full_due_at(integration(), NEW) == 0
    assert next_poll(integration(), polling(last_full_at=None), NOW) == "full"


def test_after_a_poll_the_next_delta_is_an_interval_away():
    state = just_swept()
    now = state.last_full_at

    assert next_poll_at(integration(), state, now) == now + 60_000
    hourly = integration(delta_interval_seconds=3_600)
    assert next_poll_at(hourly, state, now) == now + HOUR


def test_a_full_poll_that_falls_due_earlier_comes_first():
    state = just_swept()
    due = full_due_at(integration(), state)

    assert next_poll_at(integration(), state, due - 1_000) == due
    assert next_poll(integration(), state, due) == "full"


def test_an_overdue_full_poll_is_due_now_and_not_in_the_past():
    assert next_poll_at(integration(), polling(last_full_at=0), NOW) == NOW


def test_the_poll_after_a_restart_of_the_clock_is_never_further_than_a_delta():
    ahead = polling(last_full_at=NOW + 10 * DAY)

    assert next_poll_at(integration(), ahead, NOW) == NOW + 60_000


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
