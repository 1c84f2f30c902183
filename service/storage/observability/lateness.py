"""How late changes are: from detection to receipt, and since the last complete polls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from service.domain.delivery.subscription import SubscriptionState
from service.domain.events.identifiers import position_ms
from service.domain.observability.history import Sample
from service.domain.observability.metrics import RECEIPT, observed, quantile
from service.storage.observability.history import History
from service.storage.redis import keys
from service.storage.redis.counters import Counters
from service.storage.redis.paging import newest_ids

if TYPE_CHECKING:
    from redis.asyncio import Redis

WINDOW_MS: Final = 900_000  # that receipts are looked at for, at most
_NOT_SENT: Final = {SubscriptionState.PAUSED.value, SubscriptionState.DISABLED.value}


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
    """Reads it. The histogram of receipts counts since the server started: the recent past is its
    difference to a sample of the history."""

    def __init__(self, redis: Redis, counters: Counters, history: History) -> None:
        self._redis = redis
        self._counters = counters
        self._history = history

    async def read(self, now: int, uptime_seconds: int, *, pending: bool) -> Lateness:
        """How late changes are at `now`, by the clock of Redis. `pending` is whether any is."""
        stored, _ = await self._counters.read()
        run = await self._counters.key()
        begun, before = now - uptime_seconds * 1000, Sample(at=0, run="")
        for sample in await self._history.samples(now - WINDOW_MS, now):
            if run.endswith(sample.run):
                begun, before = sample.at, sample
                break
        counted = before.counters.get(RECEIPT.name, {})
        recent = {
            name: value - counted.get(label, 0)
            for name, value in stored.items()
            if (label := name.removeprefix(f"{RECEIPT.name}|")) != name
        }
        receipts = observed(RECEIPT, recent)[()]
        async with self._redis.pipeline(transaction=False) as pipeline:
            for kind in ("delta", "full"):
                pipeline.zrange(keys.completed(kind), 0, 0, withscores=True)
            polls = [int(found[0][1]) if found else None for found in await pipeline.execute()]
        return Lateness(
            window_seconds=(now - begun) // 1000,
            receipts=receipts.buckets[-1][1],
            receipt_p50_seconds=quantile(receipts, 0.5),
            receipt_p99_seconds=quantile(receipts, 0.99),
            oldest_pending_at=await self._oldest_pending() if pending else None,
            oldest_poll_at=polls[0],
            oldest_full_poll_at=polls[1],
        )

    async def _oldest_pending(self) -> int | None:
        """When the oldest event happened that waits on an outbox that is sent to."""
        oldest: list[int] = []
        async for ids in newest_ids(self._redis, keys.SUBSCRIPTIONS, None):
            async with self._redis.pipeline(transaction=False) as pipeline:
                for one in ids:
                    pipeline.hget(keys.outbox_state(one), "state")
                    pipeline.xrange(keys.outbox(one), "-", "+", count=1)
                found = await pipeline.execute()
            oldest += [
                position_ms(entries[0][0].decode())
                for state, entries in zip(found[::2], found[1::2], strict=True)
                if entries and (state or b"").decode() not in _NOT_SENT
            ]
        return min(oldest, default=None)
