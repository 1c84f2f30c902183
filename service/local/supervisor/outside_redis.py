"""Explains why an external Redis cannot be used."""

from __future__ import annotations

import os
import ssl

from redis.exceptions import AuthenticationError, RedisError, ResponseError

from service.redis_url import read_redis_url
from service.settings import PREFIX
from service.storage.redis.client import NotServingError, open_async
from service.storage.redis.rights import Rights
from service.storage.redis.server_fitness import replication_fault
from service.storage.redis.server_info import read_server


async def redis_fault(url: str) -> str | None:
    """Why the Redis at `url` cannot be used, with the remedy, in one line without its password;
    None if it can."""
    redis = open_async(url)
    try:
        await redis.ping()
        return await Rights(redis).fault() or replication_fault(await read_server(redis))
    except (RedisError, OSError) as error:
        away = not isinstance(error, (AuthenticationError, ResponseError, NotServingError))
        return (
            f"Redis at {read_redis_url(url).shown} {'does not answer' if away else 'refuses us'} "
            f"({_reason(error)}); check {PREFIX}REDIS_URL, or unset it for the embedded Valkey"
        )
    finally:
        await redis.aclose()


def _reason(error: BaseException) -> str:
    """The message of the operating system if there is one, else that of redis-py."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and not isinstance(inner, ssl.SSLError):
            if inner.errno is not None and inner.errno > 0:
                return os.strerror(inner.errno)  # asyncio's own text repeats the address
            if inner.strerror:
                return inner.strerror
        inner = inner.__cause__ or inner.__context__
    return str(error) or type(error).__name__
