"""Replays: events that a subscription is sent once more, and how far that has come."""

from __future__ import annotations

from typing import Literal

import msgspec

Which = Literal["all", "dead", "missing", "backfill", "event"]
# `event` is what redelivery makes
REQUESTED: tuple[Which, ...] = ("all", "dead", "missing", "backfill")
ReplayState = Literal["queued", "running", "completed", "cancelled", "failed"]


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be sent again. `since` (inclusive) and `until` (exclusive) are epoch ms of the
    events, None where they were not given; `start` and `end` say the same as ids of an XRANGE of
    the log, which ends where it did when the replay was asked for."""

    id: str
    subscription_id: str
    which: Which
    since: int | None = None
    until: int | None = None
    event_types: tuple[str, ...] | None = None
    event_id: str | None = None
    start: str = "-"
    end: str = "+"


class ReplayProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a replay has come. Of the events `scanned` so far, up to `position` in the log, so
    many were `queued`, and of these `delivered` or given up as `dead`. Of a backfill, `position`
    is its `BackfillProgress` and what is scanned are the upstream's records; `left_out` counts
    those whose courses are not as they are known. Times are epoch ms."""

    state: ReplayState
    created_at: int
    started_at: int | None = None
    finished_at: int | None = None
    position: str = ""
    scanned: int = 0
    queued: int = 0
    delivered: int = 0
    dead: int = 0
    left_out: int = 0
    error: str | None = None
