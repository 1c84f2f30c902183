"""The operational events that the end of a poll's turn announces."""

from __future__ import annotations

from service.domain.events.event import rfc3339
from service.domain.events.operational import Announcement, When, of_integration
from service.domain.polling.integration import Integration, PollingState, Problem
from service.domain.polling.progress import PollProgress
from service.domain.polling.state_change import StateChange

BASELINE_COMPLETED = "integration.baseline_completed"
TROUBLED = "integration.error"
RECOVERED = "integration.recovered"


def baseline_completed(
    integration: Integration, state: PollingState, progress: PollProgress
) -> Announcement:
    """The first full poll of an epoch is complete."""
    facts = {
        "baseline": integration.baseline.value,
        "records": progress.records,
        "epoch": progress.epoch,
        "previous_epoch": state.previous_epoch,
    }
    return of_integration(integration, BASELINE_COMPLETED, facts)


def of_problem(
    integration: Integration, known: Problem | None, problem: Problem | None, change: StateChange
) -> list[Announcement]:
    """The announcement about the `problem` that an operator must act on: that it started, or that
    the `known` one has ended."""
    if problem is not None and problem.attention:
        return [_troubled(integration, problem)] if isinstance(change.problem, Problem) else []
    replaced = isinstance(change.problem, Problem) or change.problem is None
    if known is None or not known.attention or not replaced:
        return []
    facts = {"code": known.code, "since": rfc3339(known.since)}
    return [of_integration(integration, RECOVERED, facts, When.UNTROUBLED)]


def _troubled(integration: Integration, problem: Problem) -> Announcement:
    facts = {
        "code": problem.code,
        "message": problem.message,
        "status": problem.status,
        "log_url": problem.log_url,
        "since": rfc3339(problem.since),
    }
    return of_integration(integration, TROUBLED, facts, When.TROUBLED)
