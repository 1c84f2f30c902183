"""Integrations: registration, schedule and state."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec
from xxhash import xxh3_64_intdigest

from service.domain.courses.tracked_paths import REMOTE_DATA_PATHS
from service.domain.polling.intervals import (
    DELTA_HORIZON_MS,
    DELTA_INTERVAL_SECONDS,
    FULL_INTERVAL_SECONDS,
    FULL_JITTER,
    LEAST_WAIT_MS,
    MAX_BACKOFF_SECONDS,
    MAX_SKEW_MS,
)
from service.domain.polling.observations import Observed
from service.domain.review.guards import Guards

UNCONFIRMED_CODE = "UnconfirmedChanges"

PollKind = Literal["delta", "full"]
Decision = Literal["publish", "accept_silently"]


class Baseline(StrEnum):
    """Whether the first complete full poll is reported."""

    SILENT = "silent"
    EMIT = "emit"


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """A base URL and its API key, which is stored encrypted beside it. A credential that a
    registration created `inline` is deleted with its last integration. Times are epoch ms."""

    id: str
    name: str
    base_url: str
    created_at: int
    updated_at: int
    inline: bool = False


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
    full_interval_seconds: int = FULL_INTERVAL_SECONDS
    baseline: Baseline = Baseline.SILENT
    ignore_paths: tuple[str, ...] = ()
    track_remote_data: bool = False
    guards: Guards = Guards()
    paused: bool = False

    @property
    def ignored(self) -> frozenset[str]:
        """The tracked paths whose changes are ignored."""
        return frozenset(self.ignore_paths) | (
            frozenset() if self.track_remote_data else REMOTE_DATA_PATHS
        )


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """The problem that prevents an integration's polls, for an operator.

    `code` is the upstream's error code or ours in lower case; `since` the epoch ms of the first
    consecutive failure; `attention` whether an operator must act (otherwise it retries);
    `elsewhere` whether the response may not come from the API.
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
        """Whether polls fail until an operator acts."""
        return self.attention and self.code != UNCONFIRMED_CODE


class PollingState(msgspec.Struct, frozen=True, kw_only=True):
    """The results of polling an integration. Times are epoch ms, None for never. `epoch` names the
    current catalogue; `failures` counts consecutive failed polls; `held` counts the changes that
    wait for a decision or for its execution, and `decision` is the one to carry out;
    `clock_skew_ms` is how far the upstream's clock is ahead of ours; `full_retry_at` is the time of
    the next full poll after one was stopped; `requested` is the poll that was requested and has not
    begun; `observed` are other observations of its polls.
    """

    epoch: str
    previous_epoch: str | None = None
    baselined: bool = False
    watermark: int | None = None
    last_delta_at: int | None = None
    last_full_at: int | None = None
    full_retry_at: int | None = None
    course_count: int = 0
    quarantined: int = 0
    held: int = 0
    decision: Decision | None = None
    failures: int = 0
    problem: Problem | None = None
    clock_skew_ms: int | None = None
    requested: PollKind | None = None
    requested_id: str | None = None
    observed: Observed = Observed()


class IntegrationState(StrEnum):
    """Checked in this order: the first that applies counts."""

    PAUSED = "paused"
    ERROR = "error"
    REVIEW = "review"
    PENDING = "pending"
    ACTIVE = "active"


def state_of(integration: Integration, polling: PollingState) -> IntegrationState:
    """The one state of an integration, as the API reports it."""
    if integration.paused:
        return IntegrationState.PAUSED
    if polling.problem is not None and polling.problem.attention:
        return IntegrationState.ERROR
    if polling.held:
        return IntegrationState.REVIEW
    if not polling.baselined:
        return IntegrationState.PENDING
    return IntegrationState.ACTIVE


def next_poll(integration: Integration, polling: PollingState, now_ms: int) -> PollKind:
    """The kind of poll that is due at `now_ms`."""
    if not polling.baselined or polling.watermark is None:
        return "full"
    if now_ms - polling.watermark > DELTA_HORIZON_MS:
        return "full"
    if polling.requested is not None:
        return polling.requested
    if now_ms >= full_due_at(integration, polling):
        return "full"
    return "delta"


def full_due_at(integration: Integration, polling: PollingState) -> int:
    """Epoch ms of the next full poll: one in each slot of the interval, with a stable offset and a
    jitter that differs between slots, so that integrations registered together do not start full
    polls together. A missed full poll is skipped, and deltas use the time between a stopped one and
    its retry."""
    interval = integration.full_interval_seconds * 1000
    if polling.last_full_at is None:
        return 0
    offset = xxh3_64_intdigest(integration.id.encode()) % interval
    slot = (polling.last_full_at - offset) // interval + 1
    spread = int(interval * FULL_JITTER) + 1
    jitter = xxh3_64_intdigest(f"{integration.id} {slot}".encode()) % spread
    return max(slot * interval + offset + jitter, polling.full_retry_at or 0)


def next_poll_at(integration: Integration, polling: PollingState, now_ms: int) -> int:
    """Epoch ms at which the integration is due again after a poll that succeeded."""
    delta_at = now_ms + integration.delta_interval_seconds * 1000
    if polling.last_full_at is None:
        return delta_at
    return min(delta_at, max(now_ms, full_due_at(integration, polling)))


def backoff_ms(failures: int, unit_random: float) -> int:
    """Full-jitter backoff after `failures` (≥ 1) consecutive failed polls, in ms."""
    ceiling: int = min(MAX_BACKOFF_SECONDS, 5 * 2 ** min(failures - 1, 10))
    return 1000 + int(unit_random * ceiling * 1000)


def next_try_ms(wait_ms: int, asked_ms: int, left_ms: int) -> int | None:
    """The wait of a failing poll until its next try: its backoff, and at least the upstream's
    requested wait; None if the poll must stop.

    `left_ms` is the time left of its patience. A backoff is cut to that time, so that the last try
    is made at its end. A requested wait is not cut: if it is longer than the time left, the poll
    stops at once.
    """
    if left_ms < LEAST_WAIT_MS or asked_ms > left_ms:
        return None
    return min(max(wait_ms, asked_ms), left_ms)


def believed_date(date_ms: int | None, now_ms: int) -> int | None:
    """The upstream's time, unless it differs too much from ours to be plausible."""
    if date_ms is None or abs(date_ms - now_ms) > MAX_SKEW_MS:
        return None
    return date_ms


class PollRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One poll as listed. Times are epoch ms; `verdicts` counts records by verdict."""

    id: str
    kind: PollKind
    state: Literal["queued", "running", "completed", "failed"]
    requested_at: int | None = None
    started_at: int | None = None
    finished_at: int | None = None
    pages: int = 0
    records: int = 0
    verdicts: dict[str, int] = {}
    changes: int = 0
    error: str | None = None
