"""The schedule: due work, claimed work, and making work due."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from service.storage.redis import keys
from service.storage.redis.keys import Key, ScheduleKeys
from service.storage.redis.scripts import Script, run
from service.storage.scheduling.leases import Kind
from service.storage.scheduling.pause import ACTIVITIES

if TYPE_CHECKING:
    from redis.asyncio import Redis


class ClaimLimit(msgspec.Struct, frozen=True):
    """The maximum number of claims of a kind, and the name of the RQ queue whose length may not
    reach `bound`."""

    kind: Kind
    queue: str
    most: int
    bound: int


class Claims(msgspec.Struct, frozen=True):
    """Ids claimed together; `token` is the ms at which the claim lapses, `workers` the number of
    workers of the queue, some of which may have died."""

    token: int
    ids: list[str]
    workers: int


class KindToClaim(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of work: at most `most` are claimed, none while its RQ queue is `bound` long or
    `activity` is paused."""

    schedule: ScheduleKeys
    queue: Key
    workers: Key
    most: int
    bound: int
    activity: str


class ClaimDue(Script[list[Claims]]):
    """Claims due polls and outboxes, unless they are paused or workers are behind: the only command
    of an idle second. `scheduler` is the one whose turn it is, if any."""

    schedulers: Key = keys.SCHEDULERS
    control: Key = keys.CONTROL
    claim_ms: int
    scheduler: str | None
    kinds: Sequence[KindToClaim]


class Wake(Script[None]):
    """Makes something due now, unless a worker holds its lease."""

    schedule: ScheduleKeys
    id: str


class Schedule:
    """Due times of integrations and outboxes."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def claim(
        self, limits: Sequence[ClaimLimit], claim_ms: int, scheduler: str | None = None
    ) -> list[Claims]:
        """Claims due work of each kind, unless it is paused; `scheduler` is the name whose turn is
        recorded."""
        kinds = [
            KindToClaim(
                schedule=keys.schedule(limit.kind),
                queue=keys.rq_queue(limit.queue),
                workers=keys.rq_workers(limit.queue),
                most=limit.most,
                bound=limit.bound,
                activity=ACTIVITIES[limit.kind],
            )
            for limit in limits
        ]
        claim = ClaimDue(claim_ms=claim_ms, scheduler=scheduler, kinds=kinds)
        return await run(self._redis, claim)

    async def wake(self, kind: Kind, owned_id: str) -> None:
        """Makes something due now, unless a worker holds its lease."""
        await run(self._redis, Wake(schedule=keys.schedule(kind), id=owned_id))

    async def next_at(self, kind: Kind, ids: Sequence[str]) -> list[int | None]:
        """Epoch ms at which each is due, or at which its claim lapses; None for never."""
        if not ids:
            return []
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.zmscore(keys.due(kind), list(ids))
            pipeline.zmscore(keys.claimed(kind), list(ids))
            due, claimed = await pipeline.execute()
        scores = (
            mine if mine is not None else other for mine, other in zip(due, claimed, strict=True)
        )
        return [None if score is None else int(score) for score in scores]
