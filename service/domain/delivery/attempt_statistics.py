"""Statistics of a subscription's latest attempts: successes and durations."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from service.domain.delivery.outcome import OutcomeClass

SLICES = 30  # maximum number of attempts in them


class EndedAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """The part of an attempt record that statistics use. `at` is epoch ms; an attempt that is not
    `counted` failed because of the service's own network."""

    at: int
    outcome: str
    duration_ms: int
    counted: bool = True


class AttemptSlice(msgspec.Struct, frozen=True, kw_only=True):
    """Consecutive attempts; `at` (epoch ms) is the start of the first. The percentiles are of their
    durations."""

    at: int
    attempts: int
    delivered: int
    p50_ms: int
    p95_ms: int


class AttemptStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The outcomes of attempts. The defaults describe no attempts."""

    since: int | None = None
    attempts: int = 0
    success_rate: float | None = None
    p50_ms: int | None = None
    p95_ms: int | None = None
    outcomes: Mapping[str, int] = {}
    slices: Sequence[AttemptSlice] = ()


def summarize(attempts: Sequence[EndedAttempt]) -> AttemptStatistics:
    """The statistics of attempts in the order of time. Attempts that do not count are left out."""
    counted = [one for one in attempts if one.counted]
    if not counted:
        return AttemptStatistics()
    total = _slice(counted)
    size = math.ceil(len(counted) / SLICES)
    return AttemptStatistics(
        since=total.at,
        attempts=total.attempts,
        success_rate=total.delivered / total.attempts,
        p50_ms=total.p50_ms,
        p95_ms=total.p95_ms,
        outcomes=Counter(one.outcome for one in counted),
        slices=[_slice(counted[start : start + size]) for start in range(0, len(counted), size)],
    )


def _slice(attempts: Sequence[EndedAttempt]) -> AttemptSlice:
    durations = sorted(one.duration_ms for one in attempts)
    return AttemptSlice(
        at=attempts[0].at,
        attempts=len(attempts),
        delivered=sum(one.outcome == OutcomeClass.DELIVERED for one in attempts),
        p50_ms=_percentile(durations, 50),
        p95_ms=_percentile(durations, 95),
    )


def _percentile(values: Sequence[int], percent: int) -> int:
    """By the nearest rank; `values` are sorted."""
    return values[math.ceil(len(values) * percent / 100) - 1]
