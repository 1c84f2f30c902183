"""The schedule: what is due, what is claimed, and waking what has become due."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from service.storage import keys
from service.storage.control import ACTIVITIES
from service.storage.leases import Kind
from service.storage.scripts import load

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


class Schedule:
    """Due times of integrations and lanes."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._claim = load(redis, "claim_due")
        self._wake = load(redis, "wake")

    async def claim(
        self, limits: Sequence[ClaimLimit], claim_ms: int, scheduler: str | None = None
    ) -> list[Claims]:
        """Claims what is due of each kind, unless it is paused; `scheduler` is the name whose turn
        is noted."""
        script_keys = [keys.SCHEDULERS, keys.CONTROL]
        args: list[int | str] = [claim_ms, scheduler or ""]
        for limit in limits:
            script_keys += [getter(limit.kind) for getter in (keys.due, keys.claimed, keys.overdue)]
            script_keys.append(limit.queue_key)
            args += [limit.most, limit.bound, ACTIVITIES[limit.kind]]
        found = await self._claim(keys=script_keys, args=args)
        return [
            Claims(token=int(claims[0]), ids=[claimed.decode() for claimed in claims[1:]])
            for claims in found
        ]

    async def wake(self, kind: Kind, owned_id: str) -> None:
        """Makes something due now, unless somebody is at work on it."""
        await self._wake(keys=[keys.due(kind), keys.claimed(kind)], args=[owned_id])

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
