"""How late changes are: from detection to receipt, and since the last complete polls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from service.domain.events.identifiers import position_ms
from service.domain.observability.history import Sample, quantiles
from service.domain.observability.metrics import RECEIPT, SUM
from service.storage.observability.history import OUTBOXES_LOOKED_AT, History
from service.storage.redis import keys
from service.storage.redis.counters import Counters

if TYPE_CHECKING:
    from redis.asyncio import Redis

WINDOW_MS: Final = 900_000  # maximum window of receipts


class Lateness(msgspec.Struct, frozen=True, kw_only=True):
    """How late changes are. Times are epoch ms; `receipts` were counted within the window."""

    window_seconds: int
    receipts: int
    receipt_p50_seconds: float | None
    receipt_p99_seconds: float | None
    oldest_pending_at: int | None
    oldest_poll_at: int | None
    oldest_full_poll_at: int | None


class LatenessStore:
    """Reads how late changes are. The histogram of receipts counts since the server started: the
    recent past is its difference from a sample of the history."""

    def __init__(self, redis: Redis, counters: Counters, history: History) -> None:
        self._redis = redis
        self._counters = counters
        self._history = history

    async def read(self, now: int, uptime_seconds: int, *, pending: bool) -> Lateness:
        """How late changes are at `now`, by the clock of Redis. `pending` is whether any event is
        pending."""
        stored, _ = await self._counters.read()
        run = await self._counters.key()
        begun, before = now - uptime_seconds * 1000, Sample(at=0, run="")
        for sample in await self._history.samples(now - WINDOW_MS, now):
            if run.endswith(sample.run):
                begun, before = sample.at, sample
                break
        counted = before.counters.get(RECEIPT.name, {})
        recent = {  # a counter that a restore reset counts as zero
            label: max(0, value - counted.get(label, 0))
            for name, value in stored.items()
            if (label := name.removeprefix(f"{RECEIPT.name}|")) != name
        }
        p50, p99 = quantiles(RECEIPT.bounds, recent, (0.5, 0.99)) or (None, None)
        async with self._redis.pipeline(transaction=False) as pipeline:
            for kind in ("delta", "full"):
                pipeline.zrange(keys.completed(kind), 0, 0, withscores=True)
            for key in (keys.due("outboxes"), keys.claimed("outboxes")):
                pipeline.zrange(key, 0, OUTBOXES_LOOKED_AT - 1)
            polls, full_polls, due, claimed = await pipeline.execute()
        return Lateness(
            window_seconds=(now - begun) // 1000,
            receipts=sum(recent.values()) - recent.get(SUM, 0),
            receipt_p50_seconds=p50,
            receipt_p99_seconds=p99,
            oldest_pending_at=await self._oldest_pending([*due, *claimed]) if pending else None,
            oldest_poll_at=int(polls[0][1]) if polls else None,
            oldest_full_poll_at=int(full_polls[0][1]) if full_polls else None,
        )

    async def _oldest_pending(self, outboxes: Sequence[bytes]) -> int | None:
        """The time of the oldest event on these outboxes."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for one in outboxes:
                pipeline.xrange(keys.outbox(one.decode()), "-", "+", count=1)
            found = await pipeline.execute()
        oldest = (position_ms(entries[0][0].decode()) for entries in found if entries)
        return min(oldest, default=None)
