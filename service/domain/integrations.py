"""Integrations: what is registered, how it is walked, and which state that adds up to."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec
from xxhash import xxh3_64_intdigest

from service.domain.fingerprint import REMOTE_DATA_PATHS
from service.domain.guards import Guards
from service.domain.observed import Observed

DELTA_INTERVAL_SECONDS = 60
SWEEP_INTERVAL_SECONDS = 21_600
DELTA_OVERLAP_MS = 600_000  # a delta looks this far behind the watermark for late-visible rows
DELTA_HORIZON_MS = 13 * 86_400_000  # tombstones are anonymised after 14 days: sweep instead
PROBE_SECONDS = 1_800  # between probes of an integration that needs attention
MODEL_PROBE_SECONDS = 86_400  # between probes of an integration that has no courses at all
MAX_BACKOFF_SECONDS = 900
SWEEP_RETRY_SECONDS = 3_600  # from a sweep that was given up to the next, while deltas go on
_LEAST_WAIT_MS = 1_000  # less patience than that is none
SWEEP_JITTER = 0.05  # of the interval by which a sweep may come later than its slot
UNREADABLE_MS = 600_000  # of pages that cannot be read, until a person is told
SKEW_REPORTED_MS = 30_000  # between our clock and the upstream's
# Beyond this difference a `Date` of the upstream is not used. A clock set to local time is up to 14
# hours off, one that stopped yesterday a day. The bound keeps deltas far from DELTA_HORIZON_MS.
MAX_SKEW_MS = 25 * 3_600_000
CACHE_REPORTED_MS = 60_000  # age of an answer of the upstream, as a cache tells it
UNCONFIRMED_CODE = "UnconfirmedChanges"

WalkKind = Literal["delta", "sweep"]
Decision = Literal["apply", "discard"]


class Baseline(StrEnum):
    """Whether the first complete sweep is reported."""

    SILENT = "silent"
    EMIT = "emit"


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """A base URL and, kept sealed beside it, the API key that opens it. Times are epoch ms."""

    id: str
    name: str
    base_url: str
    created_at: int
    updated_at: int


class Integration(msgspec.Struct, frozen=True, kw_only=True):
    """One connected LMS behind the upstream, as registered. Times are epoch ms.

    Identity: the credential's base URL together with `upstream_id`; two registrations that
    agree in both would report every change twice.
    """

    id: str
    name: str
    upstream_id: str
    credential_id: str
    created_at: int
    updated_at: int
    external_id: str | None = None
    labels: dict[str, str] = {}
    delta_interval_seconds: int = DELTA_INTERVAL_SECONDS
    sweep_interval_seconds: int = SWEEP_INTERVAL_SECONDS
    baseline: Baseline = Baseline.SILENT
    ignore_paths: tuple[str, ...] = ()
    track_remote_data: bool = False
    guards: Guards = Guards()
    paused: bool = False

    @property
    def ignored(self) -> frozenset[str]:
        """The tracked paths whose changes count for nothing."""
        return frozenset(self.ignore_paths) | (
            frozenset() if self.track_remote_data else REMOTE_DATA_PATHS
        )


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What keeps an integration from being walked, for an operator to read.

    `code` is the upstream's error code or ours in lower case; `since` the epoch ms of the
    first failure in a row; `attention` whether a person must act (otherwise it retries);
    `elsewhere` whether the answer may be that of something else than the API.
    """

    code: str
    message: str
    since: int
    attention: bool
    status: int | None = None
    log_url: str | None = None
    elsewhere: bool = False

    @property
    def stops_polls(self) -> bool:
        """Whether nothing can be polled until a person acts."""
        return self.attention and self.code != UNCONFIRMED_CODE


class WalkingState(msgspec.Struct, frozen=True, kw_only=True):
    """What walking an integration has led to so far. Times are epoch ms, None where never.

    `epoch` names the catalogue in force; `failures` counts failed walks in a row; `held`
    counts the changes that wait for a decision or for it to be carried out, and `decision` is
    the one to be carried out; `clock_skew_ms` is how far the upstream's clock is ahead of ours;
    `sweep_retry_at` is when the next sweep may be tried, as long as the last one was given up;
    `requested` is the walk asked for over the API and not yet begun; `observed` is what its polls
    noticed besides.
    """

    epoch: str
    previous_epoch: str | None = None
    baselined: bool = False
    watermark: int | None = None
    last_delta_at: int | None = None
    last_sweep_at: int | None = None
    sweep_retry_at: int | None = None
    course_count: int = 0
    quarantined: int = 0
    held: int = 0
    decision: Decision | None = None
    failures: int = 0
    problem: Problem | None = None
    clock_skew_ms: int | None = None
    requested: WalkKind | None = None
    requested_id: str | None = None
    observed: Observed = Observed()


class IntegrationState(StrEnum):
    """Checked in this order: the first that applies is shown."""

    PAUSED = "paused"
    ERROR = "error"
    REVIEW = "review"
    PENDING = "pending"
    ACTIVE = "active"


def state_of(integration: Integration, walking: WalkingState) -> IntegrationState:
    """The one state shown to people."""
    if integration.paused:
        return IntegrationState.PAUSED
    if walking.problem is not None and walking.problem.attention:
        return IntegrationState.ERROR
    if walking.held:
        return IntegrationState.REVIEW
    if not walking.baselined:
        return IntegrationState.PENDING
    return IntegrationState.ACTIVE


def next_walk(integration: Integration, walking: WalkingState, now_ms: int) -> WalkKind:
    """The kind of walk that is called for at `now_ms`."""
    if not walking.baselined or walking.watermark is None:
        return "sweep"
    if now_ms - walking.watermark > DELTA_HORIZON_MS:
        return "sweep"
    if walking.requested is not None:
        return walking.requested
    if now_ms >= sweep_due_at(integration, walking):
        return "sweep"
    return "delta"


def sweep_due_at(integration: Integration, walking: WalkingState) -> int:
    """Epoch ms of the next sweep: one in each slot of the interval, spread by a stable offset
    and by a jitter that differs from slot to slot, so that integrations registered together do
    not sweep together. A missed sweep is not replayed, and one that was given up leaves the
    time until its retry to deltas."""
    interval = integration.sweep_interval_seconds * 1000
    if walking.last_sweep_at is None:
        return 0
    offset = xxh3_64_intdigest(integration.id.encode()) % interval
    slot = (walking.last_sweep_at - offset) // interval + 1
    spread = int(interval * SWEEP_JITTER) + 1
    jitter = xxh3_64_intdigest(f"{integration.id} {slot}".encode()) % spread
    return max(slot * interval + offset + jitter, walking.sweep_retry_at or 0)


def next_walk_at(integration: Integration, walking: WalkingState, now_ms: int) -> int:
    """Epoch ms at which the integration is due again after a walk that succeeded."""
    delta_at = now_ms + integration.delta_interval_seconds * 1000
    if walking.last_sweep_at is None:
        return delta_at
    return min(delta_at, max(now_ms, sweep_due_at(integration, walking)))


def backoff_ms(failures: int, unit_random: float) -> int:
    """Full-jitter backoff after `failures` (≥ 1) failed walks in a row, in ms."""
    ceiling: int = min(MAX_BACKOFF_SECONDS, 5 * 2 ** min(failures - 1, 10))
    return 1000 + int(unit_random * ceiling * 1000)


def next_try_ms(wait_ms: int, asked_ms: int, left_ms: int) -> int | None:
    """How long a failing poll waits until its next try: its backoff, and no less than the upstream
    asked for; None where the poll is to be given up.

    `left_ms` is what is left of its patience. A backoff ends with it, so that the last try is made
    just then. A wait that was asked for is not cut short: where it is longer than what is left,
    the poll is given up at once.
    """
    if left_ms < _LEAST_WAIT_MS or asked_ms > left_ms:
        return None
    return min(max(wait_ms, asked_ms), left_ms)


def believed_date(date_ms: int | None, now_ms: int) -> int | None:
    """The upstream's time, unless it is so far from ours that it is no clock's."""
    if date_ms is None or abs(date_ms - now_ms) > MAX_SKEW_MS:
        return None
    return date_ms


class WalkRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One walk as listed. Times are epoch ms; `verdicts` counts records by verdict."""

    id: str
    kind: WalkKind
    state: Literal["queued", "running", "completed", "failed"]
    requested_at: int | None = None
    started_at: int | None = None
    finished_at: int | None = None
    pages: int = 0
    records: int = 0
    verdicts: dict[str, int] = {}
    changes: int = 0
    error: str | None = None
