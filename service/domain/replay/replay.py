"""Replays: events that a subscription is sent again, and their progress."""

from __future__ import annotations

from typing import Literal

import msgspec

Which = Literal["all", "dead", "missing", "backfill", "event"]
# `event` is created by a redelivery
REQUESTED: tuple[Which, ...] = ("all", "dead", "missing", "backfill")
ReplayState = Literal["queued", "running", "completed", "cancelled", "failed"]


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """The events to send again. `since` (inclusive) and `until` (exclusive) are epoch ms of the
    events, None if not given. `start` and `end` are the ids of an XRANGE of the log, up to its end
    at the time of the request."""

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
    """The progress of a replay. It has `scanned` events up to `position` in the log and `queued`
    some of them, of which some are `delivered` or `dead`. For a backfill, `position` is its
    `BackfillProgress` and it scans the upstream's records; `left_out` counts those that do not
    match their courses' known state. Times are epoch ms."""

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
