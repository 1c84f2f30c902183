"""Reads the state of the whole system: the server, schedulers, RQ's workers and queues, work."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import msgspec

from service.storage.redis import keys
from service.storage.redis.paging import all_ids
from service.storage.redis.server_fitness import Server
from service.storage.redis.server_info import read_server
from service.storage.scheduling.leases import Kind

if TYPE_CHECKING:
    from redis.asyncio import Redis


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """A worker process as RQ knows it; `last_heartbeat` is RQ's ISO 8601 text."""

    name: str
    state: str
    queues: tuple[str, ...]
    host: str | None
    pid: int | None
    last_heartbeat: str | None


class Queue(msgspec.Struct, frozen=True):
    """An RQ queue and the numbers of its jobs."""

    name: str
    queued: int
    started: int
    failed: int


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """Polls or outboxes by their state in the schedule; `oldest_due_at` is epoch ms."""

    due: int
    claimed: int
    leased: int
    oldest_due_at: int | None


class Overview:
    """Reads the state of the system. No command blocks the server for long."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def server(self) -> Server:
        """The server's report about itself."""
        return await read_server(self._redis)

    async def now_ms(self) -> int:
        """The time by the clock of Redis, which due times use, in epoch ms."""
        seconds, microseconds = await self._redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def schedulers(self) -> list[tuple[str, int]]:
        """The recent schedulers, and the time (epoch ms) of each one's last turn."""
        found = cast(
            "list[tuple[bytes, float]]",
            await self._redis.zrange(keys.SCHEDULERS, 0, -1, withscores=True),
        )
        return sorted((name.decode(), int(turn)) for name, turn in found)

    async def workers(self) -> list[Worker]:
        """The worker processes registered in RQ."""
        names = sorted(
            name.decode()
            for name in cast("set[bytes]", await self._redis.smembers(keys.RQ_WORKERS))
        )
        if not names:
            return []
        async with self._redis.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.hgetall(name)
            found = await pipeline.execute()
        return [
            _worker(name.rpartition(":")[2], fields)
            for name, fields in zip(names, found, strict=True)
            if fields
        ]

    async def queues(self) -> list[Queue]:
        """The queues registered in RQ."""
        names = sorted(
            name.decode().removeprefix(keys.rq_queue(""))
            for name in cast("set[bytes]", await self._redis.smembers(keys.RQ_QUEUES))
        )
        if not names:
            return []
        async with self._redis.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.llen(keys.rq_queue(name))
                pipeline.zcard(keys.rq_started(name))
                pipeline.zcard(keys.rq_failed(name))
            found = await pipeline.execute()
        return [Queue(name, *found[3 * at : 3 * at + 3]) for at, name in enumerate(names)]

    async def work(self, kind: Kind, now_ms: int) -> Work:
        """The state of the work of a kind."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.zcount(keys.due(kind), "-inf", now_ms)
            pipeline.zrange(keys.due(kind), 0, 0, withscores=True)
            pipeline.zrange(keys.overdue(kind), 0, 0, withscores=True)
            pipeline.zrange(keys.claimed(kind), 0, -1)
            due, oldest, overdue, claimed = await pipeline.execute()
        leased = 0
        if claimed:
            leased = await self._redis.exists(
                *(keys.lease(kind, owned_id.decode()) for owned_id in claimed)
            )
        return Work(
            due=due,
            claimed=len(claimed),
            leased=leased,
            oldest_due_at=min(
                (int(at) for _, at in [*oldest, *overdue] if at <= now_ms), default=None
            ),
        )

    async def lapsed_claims(self, kind: Kind, *, before: int) -> int:
        """The number of claims that ended before `before` (epoch ms) and were not taken back."""
        return int(await self._redis.zcount(keys.claimed(kind), "-inf", before))

    async def leases_without_end(self, kind: Kind) -> list[str]:
        """The ids of claimed work whose lease never expires."""
        claimed = await all_ids(self._redis, keys.claimed(kind))
        if not claimed:
            return []
        async with self._redis.pipeline(transaction=False) as pipeline:
            for owned_id in claimed:
                pipeline.pttl(keys.lease(kind, owned_id))
            left = await pipeline.execute()
        return [owned_id for owned_id, ms in zip(claimed, left, strict=True) if ms == -1]

    async def sizes(self) -> dict[str, int]:
        """The numbers of credentials, integrations, subscriptions and events."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.zcard(keys.CREDENTIALS)
            pipeline.zcard(keys.INTEGRATIONS)
            pipeline.zcard(keys.SUBSCRIPTIONS)
            pipeline.xlen(keys.EVENTS)
            found = await pipeline.execute()
        names = ("credentials", "integrations", "subscriptions", "events")
        return dict(zip(names, found, strict=True))


def _worker(name: str, fields: dict[bytes, bytes]) -> Worker:
    def text(field: bytes) -> str | None:
        value = fields.get(field)
        return value.decode() if value else None

    pid = text(b"pid")
    return Worker(
        name=name,
        state=text(b"state") or "unknown",
        queues=tuple((text(b"queues") or "").split(",")),
        host=text(b"hostname"),
        pid=int(pid) if pid else None,
        last_heartbeat=text(b"last_heartbeat"),
    )
