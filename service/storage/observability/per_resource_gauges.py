"""Gauges of single integrations, subscriptions and credentials, read on request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final, cast, get_args

from service.domain.events.identifiers import position_ms
from service.domain.observability import metrics as declared
from service.domain.observability.metrics import Detail, GaugeMetric
from service.domain.polling.integration import PollKind
from service.storage.redis import keys

if TYPE_CHECKING:
    from redis.asyncio import Redis

Values = Mapping[tuple[str, ...], float]

AT_ONCE: Final = 200  # registrations read in one round of commands
_INTEGRATION: Final = ("state", "clock_skew_ms", *(one.total for one in declared.OF_INTEGRATION))
_POLL_KINDS: Final[tuple[PollKind, ...]] = get_args(PollKind)


class Details:
    """Reads the gauges of the first resources of each kind, and the number of the others."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def read(self, wanted: Collection[Detail], now: int) -> Mapping[GaugeMetric, Values]:
        """The gauges of the requested kinds; `now` is the clock of Redis in epoch ms."""
        readers: dict[Detail, tuple[str, Callable[[Sequence[str], _Found], Awaitable[None]]]] = {
            "integrations": (keys.INTEGRATIONS, self._integrations),
            "subscriptions": (keys.SUBSCRIPTIONS, self._subscriptions),
            "credentials": (keys.CREDENTIALS, self._credentials),
        }
        found = _Found(now)
        for detail in (one for one in declared.DETAILS if one in wanted):
            index, read = readers[detail]
            ids = await self._ids(index)
            omitted = await self._redis.zcard(index) - len(ids)
            found.add(declared.DETAIL_OMITTED, max(0, omitted), detail)
            for start in range(0, len(ids), AT_ONCE):
                await read(ids[start : start + AT_ONCE], found)
        return found.values

    async def _ids(self, index: str) -> list[str]:
        found = await self._redis.zrange(index, 0, declared.DETAIL_MOST - 1)
        return [one.decode() for one in cast("list[bytes]", found)]

    async def _integrations(self, ids: Sequence[str], found: _Found) -> None:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for kind in _POLL_KINDS:
                pipeline.zmscore(keys.completed(kind), list(ids))
            for one in ids:
                pipeline.hmget(keys.integration(one), _INTEGRATION)
            replies = await pipeline.execute()
        polled, read = replies[: len(_POLL_KINDS)], replies[len(_POLL_KINDS) :]
        for kind, ages in zip(_POLL_KINDS, polled, strict=True):
            for one, at in zip(ids, ages, strict=True):
                if at is not None:
                    found.age(declared.INTEGRATION_POLL_AGE, int(at), one, kind)
        for one, (state, skew_ms, *counts) in zip(ids, read, strict=True):
            if state is None:  # deleted meanwhile
                continue
            found.add(declared.INTEGRATION_STATE, 1, one, state.decode())
            found.add(declared.INTEGRATION_CLOCK_SKEW, int(skew_ms or 0) / 1000, one)
            for metric, count in zip(declared.OF_INTEGRATION, counts, strict=True):
                found.add(metric, int(count or 0), one)

    async def _subscriptions(self, ids: Sequence[str], found: _Found) -> None:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for one in ids:
                pipeline.hget(keys.outbox_state(one), "state")
                pipeline.xlen(keys.outbox(one))
                pipeline.zcard(keys.outbox_dead(one))
                pipeline.xrange(keys.outbox(one), "-", "+", count=1)
            read = await pipeline.execute()
        for at, one in enumerate(ids):
            state, pending, dead, oldest = read[4 * at : 4 * at + 4]
            if state is None:
                continue
            found.add(declared.SUBSCRIPTION_STATE, 1, one, state.decode())
            found.add(declared.SUBSCRIPTION_PENDING, pending, one)
            found.add(declared.SUBSCRIPTION_DEAD, dead, one)
            happened_at = position_ms(oldest[0][0].decode()) if oldest else found.now
            found.age(declared.SUBSCRIPTION_AGE, happened_at, one)

    async def _credentials(self, ids: Sequence[str], found: _Found) -> None:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for one in ids:
                pipeline.hmget(keys.budget(one), "limit", "remaining", "reset_at")
            read = await pipeline.execute()
        for one, (limit, remaining, reset_at) in zip(ids, read, strict=True):
            if remaining is None or int(reset_at or 0) <= found.now:
                continue  # the new window is not known yet
            found.add(declared.CREDENTIAL_REMAINING, int(remaining), one)
            if limit is not None:
                found.add(declared.CREDENTIAL_LIMIT, int(limit), one)


class _Found:
    """The gauges found so far, with `now` as the clock of Redis in epoch ms."""

    def __init__(self, now: int) -> None:
        self.now = now
        self.values: dict[GaugeMetric, dict[tuple[str, ...], float]] = {}

    def add(self, metric: GaugeMetric, value: float, *labels: str) -> None:
        self.values.setdefault(metric, {})[labels] = value

    def age(self, metric: GaugeMetric, at: int, *labels: str) -> None:
        self.add(metric, max(0, self.now - at) / 1000, *labels)
