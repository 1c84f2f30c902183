"""The end of a failed turn of a poll: whether and when the poll continues, and whether an operator
must act."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from service.domain.errors import (
    FingerprintVersionError,
    UpstreamAuthError,
    UpstreamBusyError,
    UpstreamError,
    UpstreamInputError,
    UpstreamModelUnavailableError,
    UpstreamNotFoundError,
    UpstreamNotReadyError,
    UpstreamPageError,
    UpstreamPagingError,
    UpstreamTargetRefusedError,
    UpstreamUnavailableError,
)
from service.domain.polling.integration import (
    Integration,
    PollingState,
    Problem,
    backoff_ms,
    next_try_ms,
)
from service.domain.polling.intervals import (
    FULL_RETRY_SECONDS,
    MAX_BACKOFF_SECONDS,
    MODEL_PROBE_SECONDS,
    PROBE_SECONDS,
    UNREADABLE_MS,
)
from service.domain.polling.notices import duration, standing_problem
from service.domain.polling.progress import (
    FULL_PATIENCE_MS,
    MIN_PAGE_SIZE,
    MIN_UNREADABLE_PAGE_SIZE,
    RESUMABLE_MS,
    PollProgress,
    after_error,
    restarted,
    with_smaller_pages,
)
from service.domain.polling.state_change import StateChange
from service.domain.polling.turn_end import since_first

PollError = UpstreamError | FingerprintVersionError

_NEEDS_A_PERSON = (
    FingerprintVersionError,
    UpstreamAuthError,
    UpstreamNotFoundError,
    UpstreamTargetRefusedError,
)
_TRANSIENT = (UpstreamBusyError, UpstreamUnavailableError, UpstreamPageError)


class FailedTurn(msgspec.Struct, frozen=True, kw_only=True):
    """The consequences of a failed turn. `progress` is the state from which the poll continues,
    None if it is over; `error` is the listed error; the integration's `problem` is part of the
    `change` and is repeated for announcements.
    """

    progress: PollProgress | None
    wait_ms: int
    error: str
    problem: Problem
    change: StateChange


class _Consequence(msgspec.Struct, frozen=True, kw_only=True):
    over: bool = False
    attention: bool = False
    wait_ms: int


def after_failure(
    integration: Integration,
    state: PollingState,
    progress: PollProgress,
    error: PollError,
    *,
    advanced: bool,
    now_ms: int,
    unit_random: float,
) -> FailedTurn:
    """The consequences of an error that ends a turn; `advanced` means that the turn committed
    progress before."""
    transient = isinstance(error, _TRANSIENT)
    # Occasional failures do not add up while a poll makes progress between them.
    failures = 1 if transient and advanced else state.failures + 1
    # Deltas wait while a full poll is retried; a baseline delays none.
    delays_deltas = progress.kind == "full" and state.baselined
    patience_ms = FULL_PATIENCE_MS if delays_deltas else RESUMABLE_MS
    passed_ms = now_ms - progress.updated_at
    found = _consequence(error, progress, backoff_ms(failures, unit_random), patience_ms, passed_ms)
    problem = _problem(error, now_ms, attention=found.attention)
    message = f"{problem.code}: {problem.message}"
    if transient and found.over:
        message += _given_up(error, patience_ms, passed_ms)
    wait_ms = found.wait_ms
    problem = since_first(state.problem, problem)
    if isinstance(error, UpstreamPageError):
        problem, wait_ms = _unreadable(state.problem, problem, now_ms, wait_ms)
    if transient:
        problem = _with_standing(state, problem, advanced=advanced)
    full_retry_at: int | UnsetType = UNSET
    if found.over and delays_deltas and not found.attention:
        retry_seconds = min(FULL_RETRY_SECONDS, integration.full_interval_seconds)
        full_retry_at = now_ms + retry_seconds * 1000
        # A delta has waited long enough for the full poll.
        delta_ms = integration.delta_interval_seconds * 1000
        wait_ms = _asked_ms(error) if transient else min(wait_ms, delta_ms)
    return FailedTurn(
        progress=None if found.over else after_error(adapted(progress, error), message),
        wait_ms=wait_ms,
        error=message,
        problem=problem,
        change=StateChange(failures=failures, problem=problem, full_retry_at=full_retry_at),
    )


def adapted(progress: PollProgress, error: Exception) -> PollProgress:
    """The poll's state after an error: from the start if its cursor is invalid, with smaller pages
    if a page did not arrive."""
    if isinstance(error, UpstreamInputError):
        return restarted(progress)
    if isinstance(error, UpstreamPageError):  # down to the one record that cannot be read
        return with_smaller_pages(progress, MIN_UNREADABLE_PAGE_SIZE)
    if isinstance(error, UpstreamUnavailableError):
        return with_smaller_pages(progress, MIN_PAGE_SIZE)
    return progress


def _consequence(
    error: PollError, progress: PollProgress, wait_ms: int, patience_ms: int, passed_ms: int
) -> _Consequence:
    """Whether the poll is over, whether an operator must act, and the wait."""
    if isinstance(error, _NEEDS_A_PERSON):
        return _Consequence(over=True, attention=True, wait_ms=PROBE_SECONDS * 1000)
    if isinstance(error, UpstreamModelUnavailableError):
        return _Consequence(over=True, attention=True, wait_ms=MODEL_PROBE_SECONDS * 1000)
    if isinstance(error, UpstreamNotReadyError):
        return _Consequence(over=True, wait_ms=PROBE_SECONDS * 1000)
    if isinstance(error, UpstreamPagingError):
        return _Consequence(over=True, wait_ms=wait_ms)
    if isinstance(error, UpstreamInputError):
        refused = progress.cursor is None or progress.restarts > 0
        return _Consequence(over=refused, wait_ms=wait_ms if refused else 0)
    asked_ms = _asked_ms(error)
    next_ms = next_try_ms(wait_ms, asked_ms, patience_ms - passed_ms)
    if next_ms is None:
        return _Consequence(over=True, wait_ms=max(wait_ms, asked_ms))
    return _Consequence(wait_ms=next_ms)


def _problem(error: PollError, now_ms: int, *, attention: bool) -> Problem:
    name = type(error).__name__.removesuffix("Error")
    if isinstance(error, FingerprintVersionError):
        return Problem(code=name, message=str(error), since=now_ms, attention=attention)
    return Problem(
        code=error.code or name,
        message=str(error),
        since=now_ms,
        attention=attention,
        status=error.status,
        log_url=error.log_url,
        elsewhere=error.elsewhere,
    )


def _unreadable(
    known: Problem | None, problem: Problem, now_ms: int, wait_ms: int
) -> tuple[Problem, int]:
    """The problem that a page cannot be read, and the wait: an operator must act if it lasts. A
    backoff does not delay that."""
    left_ms = problem.since + UNREADABLE_MS - now_ms
    if left_ms > 0:
        return problem, min(wait_ms, max(left_ms, 1000))
    lasts = known is not None and known.code == problem.code
    return msgspec.structs.replace(problem, attention=lasts), wait_ms


def _with_standing(state: PollingState, problem: Problem, *, advanced: bool) -> Problem:
    """The problem to keep after an error that may be temporary: it does not end a problem that
    needs an operator."""
    known, standing = state.problem, standing_problem(state.observed)
    if not advanced and known is not None and known.attention:
        return known
    return standing if standing is not None and not problem.attention else problem


def _asked_ms(error: Exception) -> int:
    """The wait that the upstream requested, up to the accepted maximum."""
    asked = error.retry_after if isinstance(error, UpstreamError) else None
    return 0 if asked is None else int(min(asked, MAX_BACKOFF_SECONDS) * 1000)


def _given_up(error: Exception, patience_ms: int, passed_ms: int) -> str:
    """Why a poll is stopped, in words."""
    if (asked_ms := _asked_ms(error)) > patience_ms - passed_ms >= 1_000:
        return (
            f"; stopped: the upstream requests a wait of {duration(asked_ms)}, longer than what "
            f"is left of {duration(patience_ms)}"
        )
    return f"; stopped after {duration(passed_ms)} without a page"
