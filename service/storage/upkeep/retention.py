"""Trims data beyond its retention."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, cast

import msgspec

from service.domain.events.identifiers import position_order
from service.storage.delivery.outboxes import EXPIRED
from service.storage.redis import keys
from service.storage.redis.counters import Counters, field
from service.storage.redis.keys import DeadKeys, Key, QueueKeys, RecordKeys
from service.storage.redis.paging import newest_ids
from service.storage.redis.scripts import Script, run
from service.storage.redis.streams import read_stream, read_stream_back

if TYPE_CHECKING:
    from redis.asyncio import Redis

TRIMMED_AT_ONCE = 1_000  # entries of an outbox that become dead in one script, and the like
_READ_AT_ONCE = 100  # events whose places are looked up in one command, with their bodies


class TrimmedDead(msgspec.Struct, frozen=True):
    """How many dead deliveries were examined, and how many were removed."""

    looked_at: int
    gone: int


class TrimDead(Script[TrimmedDead]):
    """Removes dead deliveries that died before a time (epoch ms), those of the oldest events first,
    in steps: at most `most` after those `passed_over`."""

    dead: DeadKeys
    totals: Key = keys.TOTALS
    before: int
    passed_over: int
    most: int


class TrimRecords(Script[int]):
    """Removes attempts that were recorded before a time (epoch ms), in steps. Returns their
    number."""

    records: RecordKeys
    before: int
    most: int


class TrimOutbox(Script[int]):
    """Makes entries dead whose events are no longer in the log, which begins at `before`, the
    oldest first, in steps. Returns their number."""

    live: QueueKeys
    dead: DeadKeys
    outbox_state: Key
    counters: Key
    totals: Key = keys.TOTALS
    before: str
    most: int
    reason: str = EXPIRED
    counter: str = field("deliveries_total", state="dead")


class TrimLog(Script[int]):
    """Trims the log up to the position `last`, in steps of about `most` events, and stores that
    position, which the stream itself does not. It distinguishes a reader that missed events from
    one that finds no new ones. Returns the number of events, 0 once all are trimmed."""

    log: Key = keys.EVENTS
    trimmed: Key = keys.EVENTS_TRIMMED
    last: str
    most: int = 10_000


class Retention:
    """Removes old events, attempt records and dead deliveries."""

    def __init__(self, redis: Redis, counters: Counters) -> None:
        self._redis = redis
        self._counters = counters

    async def trim(
        self,
        *,
        events_before: int,
        events_max_bytes: int,
        attempts_before: int,
        dead_before: int,
    ) -> dict[str, int]:
        """Removes data that is older than the given epoch ms; returns the number of each kind. The
        log also loses its oldest events while it takes more than `events_max_bytes` of memory.
        Outbox entries whose events were removed become dead deliveries.
        """
        events = await self._trim_aged(events_before)
        events += await self._shrink_log(events_max_bytes)
        log_begins = await self._log_begins(events_before)

        async def of_subscription(name: str) -> dict[str, int]:
            expired = await self._expire(name, log_begins)
            attempts = await self._forget_attempts(name, attempts_before)
            # Their sender finds them missing, as in the log.
            await self._redis.xtrim(keys.backfilled(name), minid=events_before, approximate=False)
            dead = await self._forget_dead(name, dead_before)
            return {"expired": expired, "attempts": attempts, "dead": dead}

        trimmed = Counter(events=events, expired=0, attempts=0, dead=0)
        async for names in newest_ids(self._redis, keys.SUBSCRIPTIONS, None):
            for each in await asyncio.gather(*map(of_subscription, names)):  # shared round trips
                trimmed.update(each)
        return trimmed

    async def _log_begins(self, events_before: int) -> str:
        """The first position at which the log may still hold an event."""
        oldest = await read_stream(self._redis, keys.EVENTS, None, 1)
        if oldest:
            return oldest[0][0].decode()
        trimmed = cast("bytes | None", await self._redis.get(keys.EVENTS_TRIMMED))
        milliseconds, counter = position_order(trimmed.decode()) if trimmed else (0, 0)
        return max(f"{milliseconds}-{counter + 1}", f"{events_before}-0", key=position_order)

    async def _trim_aged(self, before: int) -> int:
        """Trims events that are older than `before`, epoch ms."""
        last = await read_stream_back(self._redis, keys.EVENTS, f"{before}-0", 1)
        return await self._trim_log(last[0][0]) if last else 0

    async def _shrink_log(self, max_bytes: int) -> int:
        """Trims the log to its size in memory, which the server estimates from samples."""
        used = int(await self._redis.memory_usage(keys.EVENTS) or 0)
        if used <= max_bytes:
            return 0
        length = int(await self._redis.xlen(keys.EVENTS))
        surplus = length - length * max_bytes // used
        trimmed = 0
        while trimmed < surplus:
            oldest = await read_stream(
                self._redis, keys.EVENTS, None, min(surplus - trimmed, _READ_AT_ONCE)
            )
            if not oldest:
                break
            trimmed += await self._trim_log(oldest[-1][0])
        return trimmed

    async def _trim_log(self, last: bytes) -> int:
        """Trims the log up to and including the position `last`."""
        trimmed = 0
        while gone := await run(self._redis, TrimLog(last=last.decode())):
            trimmed += gone
        return trimmed

    async def _forget_dead(self, subscription_id: str, before: int) -> int:
        """Removes deliveries that died before `before`, epoch ms."""
        forgotten = kept = 0
        while True:
            trim = TrimDead(
                dead=keys.dead(subscription_id),
                before=before,
                passed_over=kept,
                most=TRIMMED_AT_ONCE,
            )
            trimmed = await run(self._redis, trim)
            forgotten += trimmed.gone
            kept += trimmed.looked_at - trimmed.gone
            if trimmed.looked_at < TRIMMED_AT_ONCE:
                return forgotten

    async def _forget_attempts(self, subscription_id: str, before: int) -> int:
        """Removes attempts that were recorded before `before`, epoch ms."""
        forgotten, last = 0, TRIMMED_AT_ONCE
        while last == TRIMMED_AT_ONCE:
            last = await run(
                self._redis,
                TrimRecords(
                    records=keys.records(subscription_id), before=before, most=TRIMMED_AT_ONCE
                ),
            )
            forgotten += last
        return forgotten

    async def _expire(self, subscription_id: str, log_begins: str) -> int:
        """Makes an outbox's entries dead whose events are no longer in the log."""
        expired = 0
        while True:
            trim = TrimOutbox(
                live=keys.live_queue(subscription_id),
                dead=keys.dead(subscription_id),
                outbox_state=keys.outbox_state(subscription_id),
                counters=await self._counters.key(),
                before=log_begins,
                most=TRIMMED_AT_ONCE,
            )
            gone = await run(self._redis, trim)
            expired += gone
            if gone < TRIMMED_AT_ONCE:
                return expired
