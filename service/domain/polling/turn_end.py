"""The end of a successful turn of a poll: the poll is complete, or continues later."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from service.domain.polling.integration import Integration, PollingState, Problem, next_poll_at
from service.domain.polling.intervals import SKEW_REPORTED_MS
from service.domain.polling.notices import observed_after, standing_problem
from service.domain.polling.observations import reasons
from service.domain.polling.progress import PollProgress
from service.domain.polling.state_change import StateChange


class CompletedPoll(msgspec.Struct, frozen=True, kw_only=True):
    """The consequences of a complete poll. `note` is the poll's note for operators, `standing`
    the problem that an operator must act on although polls succeed; the next poll is due in
    `wait_ms`."""

    change: StateChange
    standing: Problem | None
    note: str | None
    wait_ms: int


def after_completion(
    integration: Integration, state: PollingState, progress: PollProgress, now_ms: int
) -> CompletedPoll:
    """The consequences of a complete poll."""
    note = _note(integration, state, progress)
    full = progress.kind == "full"
    if full:
        state = msgspec.structs.replace(state, last_full_at=now_ms, full_retry_at=None)
    skewed = progress.skew_ms is not None and abs(progress.skew_ms) > SKEW_REPORTED_MS
    observed = observed_after(state, progress, now_ms, skewed=skewed)
    standing = standing_problem(observed)
    problem: Problem | UnsetType | None = standing
    if standing is None and state.full_retry_at is not None:
        problem = UNSET  # full polls fail because of it, and a delta does not change that
    change = StateChange(
        baselined=True if full and not state.baselined else UNSET,
        watermark=progress.watermark,
        last_delta_at=UNSET if full else now_ms,
        last_full_at=now_ms if full else UNSET,
        full_retry_at=state.full_retry_at,
        failures=0,
        problem=problem,
        clock_skew_ms=progress.skew_ms if skewed else None,
        observed=observed,
    )
    wait_ms = next_poll_at(integration, state, now_ms) - now_ms
    return CompletedPoll(change=change, standing=standing, note=note, wait_ms=wait_ms)


def after_interruption(
    state: PollingState, problem: Problem | None, *, advanced: bool
) -> tuple[StateChange, Problem | None]:
    """The changes of a turn that ends before its poll, and the problem that an operator must act on
    although polls succeed.

    `problem` blocks the poll, and `advanced` means that the turn committed progress.
    """
    standing = standing_problem(state.observed)
    change = StateChange()
    if advanced:
        # The problem is over, unless full polls still fail with it.
        change = StateChange(failures=0, problem=standing if state.full_retry_at is None else UNSET)
    known = change.problem_after(state.problem)
    # A wait for memory does not end a problem that needs an operator.
    if problem is not None and not (known is not None and known.attention):
        change = msgspec.structs.replace(change, problem=since_first(known, problem))
    return change, standing


def since_first(previous: Problem | None, problem: Problem) -> Problem:
    """The problem, since the first consecutive failure."""
    since = previous.since if previous is not None else problem.since
    return msgspec.structs.replace(problem, since=since)


def _note(integration: Integration, state: PollingState, progress: PollProgress) -> str | None:
    notes = []
    if progress.unconfirmed:
        notes.append(
            f"{sum(progress.unconfirmed.values())} changes could not be confirmed and were not "
            f"reported: {reasons(progress.unconfirmed)}"
        )
    if progress.nameless:
        notes.append(f"{progress.nameless} records without an id were skipped")
    if state.held:
        notes.append(
            f"{state.held} changes are held for review: "
            f"GET /v1/integrations/{integration.id}/review"
        )
    return "; ".join(notes) or None
