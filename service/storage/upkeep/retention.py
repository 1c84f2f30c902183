"""Trims what has outlived its retention."""

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

TRIMMED_AT_ONCE = 1_000  # entries of an outbox given up in one script, and the like
_READ_AT_ONCE = 100  # events whose places are looked up in one command, with their bodies


class TrimmedDead(msgspec.Struct, frozen=True):
    """How many dead deliveries were looked at, and how many were forgotten."""

    looked_at: int
    gone: int


class TrimDead(Script[TrimmedDead]):
    """Forgets dead deliveries that were given up before a time (epoch ms), those of the oldest
    events first, in steps: at most `most` behind those `passed_over`."""

    dead: DeadKeys
    totals: Key = keys.TOTALS
    before: int
    passed_over: int
    most: int


class TrimRecords(Script[int]):
    """Forgets attempts that were recorded before a time (epoch ms), in steps. Returns how many
    went."""

    records: RecordKeys
    before: int
    most: int


class TrimOutbox(Script[int]):
    """Gives up entries whose events are no longer in the log, which begins at `before`, the oldest
    first, in steps. Returns how many went."""

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
    """Trims the log up to the position `last`, in steps of about `most` events, and notes that
    position, which the stream itself does not: by this a reader who missed something is told from
    one who merely finds nothing new. Returns how many events went, 0 once all are gone."""

    log: Key = keys.EVENTS
    trimmed: Key = keys.EVENTS_TRIMMED
    last: str
    most: int = 10_000


class Retention:
    """Forgets old events, attempt records and dead deliveries."""

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
        """Forgets what is older than the given epoch ms; returns how much of each that was.

        The log also loses its oldest events while it takes more than `events_max_bytes` of
        memory. Entries of outboxes whose events are gone become dead deliveries.
        """
        events = await self._trim_aged(events_before)
        events += await self._shrink_log(events_max_bytes)
        log_begins = await self._log_begins(events_before)

        async def of_subscription(name: str) -> dict[str, int]:
            expired = await self._expire(name, log_begins)
            attempts = await self._forget_attempts(name, attempts_before)
            # Whoever is to send them finds them gone, as it would in the log.
            await self._redis.xtrim(keys.backfilled(name), minid=events_before, approximate=False)
            dead = await self._forget_dead(name, dead_before)
            return {"expired": expired, "attempts": attempts, "dead": dead}

        trimmed = Counter(events=events, expired=0, attempts=0, dead=0)
        async for names in newest_ids(self._redis, keys.SUBSCRIPTIONS, None):
            for each in await asyncio.gather(*map(of_subscription, names)):  # shared round trips
                trimmed.update(each)
        return trimmed

    async def _log_begins(self, events_before: int) -> str:
        """The first position that the log may still hold an event at."""
        oldest = await read_stream(self._redis, keys.EVENTS, None, 1)
        if oldest:
            return oldest[0][0].decode()
        trimmed = cast("bytes | None", await self._redis.get(keys.EVENTS_TRIMMED))
        milliseconds, counter = position_order(trimmed.decode()) if trimmed else (0, 0)
        return max(f"{milliseconds}-{counter + 1}", f"{events_before}-0", key=position_order)

    async def _trim_aged(self, before: int) -> int:
        """Trims what is older than `before`, epoch ms."""
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
        """Forgets deliveries that were given up before `before`, epoch ms."""
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
        """Forgets attempts that were recorded before `before`, epoch ms."""
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
        """Gives up what an outbox holds of events that the log no longer does."""
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
