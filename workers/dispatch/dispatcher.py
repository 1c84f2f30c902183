"""Claims due work and enqueues it as RQ jobs, in batches."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from service.logs import get_logger
from service.storage.scheduling.leases import Kind, Leases
from service.storage.scheduling.schedule import ClaimLimit, Claims, Schedule
from workers.dispatch import queues

if TYPE_CHECKING:
    from redis import Redis

CLAIM_MS = 10_000  # a job must begin within this time, otherwise its work is due again
BATCH: dict[Kind, int] = {"polls": 10, "outboxes": 25}  # ids in one job ...
LARGEST = 250  # ... or up to so many outboxes, if there are few workers
MOST: dict[Kind, int] = {"polls": 500, "outboxes": 1_000}  # ids claimed at once
BACKLOG = 40  # queued jobs above which no work is claimed
QUEUES: dict[Kind, str] = {"polls": queues.POLL, "outboxes": queues.DELIVER}

_log = get_logger("dispatch")


class Dispatcher:
    """Turns due times into jobs."""

    def __init__(self, schedule: Schedule, connection: Redis) -> None:
        self._schedule = schedule
        self._connection = connection
        self._turns: dict[tuple[Kind, ...], asyncio.Lock] = {}
        self._waiting: set[tuple[Kind, ...]] = set()

    async def take_over(self, leases: Leases) -> None:
        """Dispatches the work of an earlier, killed process of this instance."""
        begun = {
            kind: await asyncio.to_thread(queues.begun, self._connection, queue)
            for kind, queue in QUEUES.items()
        }
        reclaimed = await leases.reclaim(begun)
        if reclaimed:
            _log.info("work of a killed process reclaimed", claims=reclaimed)
            await self.dispatch(*QUEUES)

    async def dispatch_soon(self, *kinds: Kind) -> None:
        """Dispatches, unless another call that is about to dispatch will include this caller's
        work: work that becomes due at one moment forms few jobs."""
        if kinds in self._waiting:
            return
        self._waiting.add(kinds)
        async with self._turns.setdefault(kinds, asyncio.Lock()):
            self._waiting.discard(kinds)
            await self.dispatch(*kinds)

    async def dispatch(self, *kinds: Kind, scheduler: str | None = None) -> int:
        """Claims due work of `kinds` and enqueues it; returns its amount."""
        limits = [ClaimLimit(kind, QUEUES[kind], MOST[kind], BACKLOG) for kind in kinds]
        claimed = await self._schedule.claim(limits, CLAIM_MS, scheduler)
        total = sum(len(claims.ids) for claims in claimed)
        if total:
            await asyncio.to_thread(self._enqueue, list(zip(kinds, claimed, strict=True)))
        return total

    def _enqueue(self, claimed: list[tuple[Kind, Claims]]) -> None:
        for kind, claims in claimed:
            size = BATCH[kind]
            if kind == "outboxes":
                # About one job for each worker, because a job costs as much as several turns.
                share = math.ceil(len(claims.ids) / max(1, claims.workers))
                size = min(max(size, share), LARGEST)
            for start in range(0, len(claims.ids), size):
                batch = [(owned_id, claims.token) for owned_id in claims.ids[start : start + size]]
                queues.enqueue(self._connection, QUEUES[kind], batch, ttl=CLAIM_MS // 1000)
