"""What a run leaves behind in Redis that it should not."""

from __future__ import annotations

from redis.asyncio import Redis

from service.storage.redis.keys import LASTING

RQ_LASTING = ("rq:queues", "rq:workers", "rq:queue:", "rq:wip:", "rq:failed:", "rq:finished:",
              "rq:clean_registries:")  # fmt: skip


async def at_rest(redis: Redis) -> bool:
    """Whether nobody holds a lease or a claim."""
    leases = [name async for name in redis.scan_iter("cw:lease:*")]
    claims = [await redis.zcard(f"cw:claimed:{kind}") for kind in ("polls", "outboxes")]
    return not leases and not any(claims)


async def leaked(redis: Redis) -> list[str]:
    """Keys that should have a lifetime and have none, and what is left on outboxes at rest."""
    found = []
    held = await _jobs_of_lost_workers(redis)
    async for name in redis.scan_iter("*", count=1000):
        key = name.decode()
        lasting = key.startswith(LASTING + RQ_LASTING) or key.removeprefix("rq:job:") in held
        if not lasting and await redis.ttl(name) == -1:
            found.append(f"{key} has no lifetime{await _described(redis, key)}")
        of_outbox = key.startswith("cw:outbox:") and key.split(":", 3)[3:]
        if of_outbox in ([], ["retries"], ["failing"], ["replayed"], ["replayed:retries"]):
            size = await _size(redis, key)
            if size:
                found.append(f"{key} still holds {size}")
    totals = await redis.hgetall("cw:totals")
    wrong = (
        name for name in (b"pending", b"dead", b"parked", b"disabled") if int(totals.get(name, 0))
    )
    return found + [f"cw:totals has {totals[name].decode()} {name.decode()}" for name in wrong]


async def _described(redis: Redis, key: str) -> str:
    """What a job's key says, to find out where it comes from."""
    if not key.startswith("rq:job:"):
        return ""
    fields = await redis.hgetall(key)
    return (
        f": { ({name.decode(): value[:60] for name, value in fields.items() if name != b'data'}) }"
    )


async def _jobs_of_lost_workers(redis: Redis) -> set[str]:
    """Jobs that RQ's maintenance is going to declare failed, which then gives them a lifetime."""
    jobs: set[str] = set()
    async for name in redis.scan_iter("rq:wip:*"):
        jobs |= {entry.decode().partition(":")[0] for entry in await redis.zrange(name, 0, -1)}
    async for name in redis.scan_iter("rq:queue:*:intermediate"):
        jobs |= {entry.decode() for entry in await redis.lrange(name, 0, -1)}
    return jobs


async def _size(redis: Redis, key: str) -> int:
    kind = await redis.type(key)
    counts = {b"stream": redis.xlen, b"zset": redis.zcard, b"hash": redis.hlen}
    return await counts[kind](key) if kind in counts else 0
