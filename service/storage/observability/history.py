"""The history of metrics in Redis: sampled minutes, and hours computed from them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, cast

import msgspec

from service.domain.observability.history import (
    HOURS,
    MINUTE_MS,
    MINUTES,
    STORED,
    Period,
    Resolution,
    Sample,
    hours_of,
    minutes_of,
)
from service.storage.redis import keys
from service.storage.redis.counters import Counters
from service.storage.redis.keys import Key, ScheduleKeys
from service.storage.redis.scripts import Script, run

if TYPE_CHECKING:
    from redis.asyncio import Redis

OUTBOXES_LOOKED_AT: Final = 250  # outboxes to examine: the first due ones, and as many claimed ones

_read_sample = msgspec.msgpack.Decoder(Sample).decode
_read_hour = msgspec.msgpack.Decoder(Period).decode
_encode = msgspec.msgpack.encode


class MinuteSampled(msgspec.Struct, frozen=True):
    """The minute that ended last (epoch ms), whether this call recorded it, and the ms until the
    next one ends."""

    ended: int
    recorded: bool
    next_ms: int


class SampleMinute(Script[MinuteSampled]):
    """Records the values of counters and gauges, once a minute for any number of processes.

    It looks for the oldest pending event in at most `most` due outboxes and as many claimed ones.
    """

    minutes: Key = keys.HISTORY_MINUTES
    counters: Key
    totals: Key = keys.TOTALS
    outboxes: ScheduleKeys = keys.schedule("outboxes")
    outbox_prefix: str = keys.outbox("")
    names: tuple[str, ...] = STORED
    most: int = OUTBOXES_LOOKED_AT
    minute_ms: int
    kept_ms: int


class EncodedHour(msgspec.Struct, frozen=True):
    """An hour as it is stored, and the time at which it ended, epoch ms."""

    ended: int
    encoded: bytes


class StoreHours(Script[None]):
    """Stores hours and removes those that ended up to `expired`, epoch ms. Begins with a removal,
    so that it runs even at Redis's memory limit."""

    hours: Key = keys.HISTORY_HOURS
    made: Sequence[EncodedHour]
    expired: int
    kept_ms: int


class History:
    """Samples and reads the history."""

    def __init__(self, redis: Redis, counters: Counters, minute_ms: int = MINUTE_MS) -> None:
        self._redis = redis
        self._counters = counters
        self._minute_ms = minute_ms
        self._hours_made_at = 0

    def period_ms(self, resolution: Resolution) -> int:
        """The length of a period."""
        return resolution.minutes * self._minute_ms

    async def sample(self) -> float:
        """Records the minute that has ended, unless another process did, and stores hours that have
        ended. Returns the seconds until the next minute ends."""
        sampled = await run(
            self._redis,
            SampleMinute(
                counters=await self._counters.key(),
                minute_ms=self._minute_ms,
                # One more than requested, because the first is compared with it.
                kept_ms=(MINUTES.kept + 1) * self._minute_ms,
            ),
        )
        ended = sampled.ended - sampled.ended % self.period_ms(HOURS)
        if sampled.recorded and ended != self._hours_made_at:
            await self.make_hours(ended)
            self._hours_made_at = ended
        return sampled.next_ms / 1000

    async def read(self, resolution: Resolution, since: int, until: int) -> list[Period]:
        """The periods that ended after `since`, up to `until`, epoch ms."""
        if resolution is HOURS:
            found = await self._stored(keys.HISTORY_HOURS, since + 1, until)
            return [_read_hour(one) for one in found]
        samples = await self._minutes(since - self._minute_ms + 1, until)
        # In a thread, because two days take a tenth of a second.
        minutes = await asyncio.to_thread(
            lambda: minutes_of(map(_read_sample, samples), self._minute_ms)
        )
        return [minute for minute in minutes if minute.end > since]

    async def samples(self, since: int, until: int) -> list[Sample]:
        """The samples of the minutes that ended from `since` to `until`, epoch ms."""
        return [_read_sample(one) for one in await self._minutes(since, until)]

    async def make_hours(self, ended: int) -> None:
        """Stores the hours up to `ended` that are not stored yet.

        Their minutes no longer change, so processes that do this at the same time store the same
        bytes.
        """
        hour_ms = self.period_ms(HOURS)
        stored = await self._redis.zrange(
            keys.HISTORY_HOURS,
            ended,
            "-inf",
            desc=True,
            byscore=True,
            offset=0,
            num=1,
            withscores=True,
        )
        since = int(stored[0][1]) if stored else 0
        made = hours_of(await self.read(MINUTES, since, ended), hour_ms)
        if not made:
            return
        kept_ms = HOURS.kept * hour_ms
        await run(
            self._redis,
            StoreHours(
                made=[EncodedHour(hour.end, _encode(hour)) for hour in made],
                expired=ended - kept_ms,
                kept_ms=kept_ms,
            ),
        )

    async def _minutes(self, least: int, most: int) -> list[bytes]:
        return await self._stored(keys.HISTORY_MINUTES, least, most)

    async def _stored(self, key: Key, least: int, most: int) -> list[bytes]:
        return cast("list[bytes]", await self._redis.zrange(key, least, most, byscore=True))
