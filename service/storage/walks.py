"""Ends a worker's turn at an integration, and what that leaves in the integration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import msgspec

from service.domain.integrations import Problem, WalkRecord
from service.storage import keys
from service.storage.announcing import LaneTable, Notices
from service.storage.catalogue import raise_for_status
from service.storage.counters import Counters, flatten
from service.storage.leases import Lease
from service.storage.scripts import load

if TYPE_CHECKING:
    from redis.asyncio import Redis

_decode_problem = msgspec.json.Decoder(Problem).decode


class Walks:
    """Stores how walks went."""

    def __init__(self, redis: Redis, counters: Counters) -> None:
        self._redis = redis
        self._counters = counters
        self._finish = load(redis, "finish_walk")

    async def progress(self, integration_id: str) -> bytes:
        """The stored progress of the walk under way, empty if none is."""
        stored = await self._redis.hget(keys.integration(integration_id), "walk")
        return cast("bytes", stored or b"")

    async def finish(
        self,
        lease: Lease,
        *,
        epoch: str,
        progress: bytes,
        record: WalkRecord,
        over: bool,
        wait_ms: int,
        queued: str | None,
        fields: Mapping[str, str | int | bytes],
        increments: Counter[str],
        notices: Notices | None = None,
    ) -> int:
        """Gives the integration back, due in `wait_ms`, with `fields` set in it; returns how
        many lanes were woken by what was announced.

        `queued` is the id of the walk that was queued when the turn began.

        `over` says that the walk has ended, well or not, and is listed as `record`; otherwise
        it is to be resumed, and its progress says how it stands. Raises
        LeaseLostError, EpochEndedError or StaleSubscriptionsError, and then nothing was stored.
        """
        integration_id = lease.owned_id
        lanes = LaneTable()
        announced = [] if notices is None else notices.arguments(lanes)
        pairs = [item for pair in {**fields, **_attention(fields)}.items() for item in pair]
        status, *woken = await self._finish(
            keys=[
                lease.key,
                keys.integration(integration_id),
                keys.walks(integration_id),
                keys.walk_order(integration_id),
                keys.seen(integration_id, record.id),
                keys.due("walks"),
                keys.claimed("walks"),
                keys.EVENTS,
                keys.SUBSCRIPTIONS_VERSION,
                keys.TOTALS,
                await self._counters.key(),
                keys.due("lanes"),
                keys.claimed("lanes"),
                keys.waiting(integration_id, record.id),
                keys.completed("delta"),
                keys.completed("sweep"),
                *lanes.keys(),
            ],
            args=[
                lease.token,
                epoch,
                integration_id,
                wait_ms,
                record.id,
                msgspec.json.encode(record) if over else "",
                "1" if over else "0",
                "" if notices is None else notices.matcher.version,
                0 if notices is None else len(notices.announcements),
                len(lanes.keys()),
                len(increments),
                progress,
                queued or "",
                record.kind,
                "1" if record.state == "completed" else "0",
                *lanes.arguments(),
                *flatten(increments),
                *announced,
                *pairs,
            ],
        )
        raise_for_status(status)
        return int(woken[0])


def _attention(fields: Mapping[str, str | int | bytes]) -> dict[str, str]:
    """Whether a person must act, where the problem is set: scripts count by it and read no JSON."""
    if "problem" not in fields:
        return {}
    problem = fields["problem"]
    needed = bool(problem) and _decode_problem(cast("bytes", problem)).attention
    return {"attention": "1" if needed else ""}
