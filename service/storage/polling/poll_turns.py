"""Ends a worker's turn on an integration, and updates the integration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import msgspec
from msgspec import UNSET

from service.domain.polling.integration import PollKind, PollRecord, Problem
from service.domain.polling.observations import Observed
from service.domain.polling.state_change import StateChange
from service.storage.events.announcing import Announced, Notices, announced
from service.storage.redis import keys
from service.storage.redis.counters import Counters
from service.storage.redis.keys import Key, ScheduleKeys
from service.storage.redis.scripts import Script, run
from service.storage.scheduling.leases import Fence, Lease

if TYPE_CHECKING:
    from redis.asyncio import Redis


class FinishPoll(Script[int]):
    """Ends a worker's turn on an integration: sets `fields` in it, lists the poll, returns the
    lease and puts the integration in the schedule, due in `wait_ms`.

    Returns the number of outboxes that announcements woke. `record` is given if the poll is over:
    then its progress, its sets and its request are removed. `progress` is the poll's last stored
    progress, `queued` the id of the poll that was queued when the turn began, if any.

    Refuses with LEASE, EPOCH, PROGRESS or SUBSCRIPTIONS. Announces `troubled` and `untroubled`.
    """

    lease: Fence
    integration: Key
    polls: Key
    poll_order: Key
    seen: Key
    waiting: Key
    announced: Announced
    completed_deltas: Key = keys.completed("delta")
    completed_full_polls: Key = keys.completed("full")
    schedule: ScheduleKeys = keys.schedule("polls")
    id: str
    epoch: str
    progress: bytes
    poll_id: str
    kind: PollKind
    record: bytes | None
    completed: bool
    wait_ms: int
    queued: str | None
    fields: Mapping[str, str | int]
    increments: Mapping[str, int]


class Polls:
    """Stores the results of polls."""

    def __init__(self, redis: Redis, counters: Counters) -> None:
        self._redis = redis
        self._counters = counters

    async def progress(self, integration_id: str) -> bytes:
        """The stored progress of the current poll, empty if there is none."""
        stored = await self._redis.hget(keys.integration(integration_id), "poll")
        return cast("bytes", stored or b"")

    async def finish(
        self,
        lease: Lease,
        *,
        epoch: str,
        progress: bytes,
        record: PollRecord,
        over: bool,
        wait_ms: int,
        queued: str | None,
        change: StateChange,
        increments: Counter[str],
        notices: Notices | None = None,
    ) -> int:
        """Returns the integration to the schedule, due in `wait_ms`, with a changed state; returns
        the number of outboxes that announcements woke.

        `queued` is the id of the poll that was queued when the turn began. `over` means that the
        poll has ended, in success or failure, and is listed as `record`; otherwise its progress is
        resumed later. Raises LeaseLostError, EpochEndedError or StaleSubscriptionsError; then
        nothing was stored.
        """
        integration_id = lease.owned_id
        finish = FinishPoll(
            lease=lease.fence,
            integration=keys.integration(integration_id),
            polls=keys.polls(integration_id),
            poll_order=keys.poll_order(integration_id),
            seen=keys.seen(integration_id, record.id),
            waiting=keys.waiting(integration_id, record.id),
            announced=await announced(notices, self._counters),
            id=integration_id,
            epoch=epoch,
            progress=progress,
            poll_id=record.id,
            kind=record.kind,
            record=msgspec.json.encode(record) if over else None,
            completed=record.state == "completed",
            wait_ms=wait_ms,
            queued=queued,
            fields=_fields(change),
            increments=increments,
        )
        return await run(self._redis, finish)


def _fields(change: StateChange) -> dict[str, str | int]:
    """The fields of the integration's hash for a change."""
    fields: dict[str, str | int] = {
        name: _stored(value)
        for name in change.__struct_fields__
        if (value := getattr(change, name)) is not UNSET
    }
    if change.problem is not UNSET:
        # Whether an operator must act, in a field of its own, because scripts read no JSON.
        needed = change.problem is not None and change.problem.attention
        fields["attention"] = "1" if needed else ""
    return fields


def _stored(value: bool | int | Problem | Observed | None) -> str | int:
    if value is None or value == Observed():
        return ""
    return int(value) if isinstance(value, int) else msgspec.json.encode(value).decode()
