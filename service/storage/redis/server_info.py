"""Reads the Redis server's report about itself, and refuses a server that would lose data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from redis.exceptions import ConnectionError, RedisError, TimeoutError  # noqa: A004 - redis's own

from service.domain.errors import StartError
from service.logs import get_logger
from service.storage.redis import keys
from service.storage.redis.client import NotServingError, open_async
from service.storage.redis.rights import Rights
from service.storage.redis.server_fitness import (
    Server,
    eviction_fault,
    persistence_fault,
    replication_fault,
    version_fault,
)

if TYPE_CHECKING:
    from redis.asyncio import Redis

_log = get_logger("redis")


async def read_server(redis: Redis) -> Server:
    """The server's present state, in two commands. Raises RedisError."""
    info = await redis.info()
    try:
        settings = await redis.config_get("save")
    except (ConnectionError, TimeoutError):
        raise
    except RedisError:  # hosted servers forbid it
        settings = {}
    save = settings.get("save")
    return server_of(info, snapshots=None if save is None else bool(save))


async def is_empty(redis: Redis) -> bool:
    """Whether the database is empty. Raises RedisError."""
    cursor, keys = await redis.scan(count=1_000)
    while cursor and not keys:
        cursor, keys = await redis.scan(cursor, count=1_000)
    return not keys


def server_of(info: Mapping[str, Any], *, snapshots: bool | None = None) -> Server:
    """The server from this reply to INFO."""
    return Server(
        name=str(info.get("server_name", "redis")),
        version=str(info.get("valkey_version", info.get("redis_version", "unknown"))),
        run_id=str(info.get("run_id", "unknown")),
        uptime_seconds=int(info.get("uptime_in_seconds", 0)),
        memory_used=int(info.get("used_memory", 0)),
        memory_limit=int(info.get("maxmemory", 0)),
        eviction_policy=str(info.get("maxmemory_policy", "")),
        aof_enabled=bool(info.get("aof_enabled", 0)),
        aof_ok=info.get("aof_last_write_status", "ok") == "ok"
        and info.get("aof_last_bgrewrite_status", "ok") == "ok",
        snapshot_ok=info.get("rdb_last_bgsave_status", "ok") == "ok",
        snapshots=snapshots,
        loading=bool(info.get("loading", 0)),
        replica=info.get("role") == "slave",
        good_replicas=info.get("min_slaves_good_slaves"),
    )


async def check_server(url: str) -> None:
    """Checks the server before a process starts: warns of a server that would lose data in a crash,
    and of one that does not accept writes at present.

    The parts themselves wait for a server that does not answer. Raises StartError if the server
    does not grant all needed rights, evicts keys, is too old, or holds half a backup.
    """
    redis = open_async(url)
    try:
        await Rights(redis).check()
        server = await read_server(redis)
        restoring = await redis.exists(keys.RESTORING)
    except NotServingError as error:
        _log.warning("Redis does not accept writes", reason=str(error))
        return
    except (RedisError, OSError):
        return
    finally:
        await redis.aclose()
    if (refusal := replication_fault(server)) is not None:
        _log.warning("Redis does not accept writes", reason=refusal)
    fault = version_fault(server) or eviction_fault(server)
    if fault is not None:
        raise StartError(fault)
    if restoring:
        raise StartError(
            "a backup is being restored into Redis, or a restore was interrupted; wait for "
            "`coursewire restore` to end, or run it again with --replace"
        )
    if (loss := persistence_fault(server)) is not None:
        _log.warning("Redis may lose data", reason=loss)
