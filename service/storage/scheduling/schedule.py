"""The schedule: what is due, what is claimed, and waking what has become due."""

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
    """How much of a kind to claim at most, and the RQ queue that must not be `bound` long."""

    kind: Kind
    queue_key: str
    most: int
    bound: int


class Claims(msgspec.Struct, frozen=True):
    """Ids claimed together; `token` is the ms at which the claim lapses."""

    token: int
    ids: list[str]


class KindToClaim(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of work: at most `most` of it are claimed, none while its RQ queue is `bound` long or
    `activity` is paused."""

    schedule: ScheduleKeys
    queue: Key
    most: int
    bound: int
    activity: str


class ClaimDue(Script[list[Claims]]):
    """Claims what is due, polls and outboxes alike, unless that is paused or workers are behind:
    the one command that an idle second costs. `scheduler` is the one whose turn it is, if any."""

    schedulers: Key = keys.SCHEDULERS
    control: Key = keys.CONTROL
    claim_ms: int
    scheduler: str | None
    kinds: Sequence[KindToClaim]


class Wake(Script[None]):
    """Makes something due now, unless somebody is at work on it."""

    schedule: ScheduleKeys
    id: str


class Schedule:
    """Due times of integrations and outboxes."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def claim(
        self, limits: Sequence[ClaimLimit], claim_ms: int, scheduler: str | None = None
    ) -> list[Claims]:
        """Claims what is due of each kind, unless it is paused; `scheduler` is the name whose turn
        is noted."""
        kinds = [
            KindToClaim(
                schedule=keys.schedule(limit.kind),
                queue=Key(limit.queue_key),
                most=limit.most,
                bound=limit.bound,
                activity=ACTIVITIES[limit.kind],
            )
            for limit in limits
        ]
        claim = ClaimDue(claim_ms=claim_ms, scheduler=scheduler, kinds=kinds)
        return await run(self._redis, claim)

    async def wake(self, kind: Kind, owned_id: str) -> None:
        """Makes something due now, unless somebody is at work on it."""
        await run(self._redis, Wake(schedule=keys.schedule(kind), id=owned_id))

    async def next_at(self, kind: Kind, ids: Sequence[str]) -> list[int | None]:
        """Epoch ms at which each is due, or at which the claim on it lapses; None if never."""
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
