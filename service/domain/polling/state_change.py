"""The changes that a turn of a poll makes to its integration's polling state."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from service.domain.polling.integration import Problem
from service.domain.polling.observations import Observed


class StateChange(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of `PollingState` with their new values; None clears a field, and a field that is
    UNSET stays as it is."""

    baselined: bool | UnsetType = UNSET
    watermark: int | UnsetType = UNSET
    last_delta_at: int | UnsetType = UNSET
    last_full_at: int | UnsetType = UNSET
    full_retry_at: int | UnsetType | None = UNSET
    failures: int | UnsetType = UNSET
    problem: Problem | UnsetType | None = UNSET
    clock_skew_ms: int | UnsetType | None = UNSET
    observed: Observed | UnsetType = UNSET

    def problem_after(self, before: Problem | None) -> Problem | None:
        """The problem after the change."""
        return before if self.problem is UNSET else self.problem
