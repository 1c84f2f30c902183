"""The only place that opens connections to Redis or Valkey."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from redis import ConnectionPool, Redis
from redis.asyncio import BlockingConnectionPool
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.retry import Retry

from service.domain.errors import SettingsError

CONNECT_SECONDS: Final = 3.0
ANSWER_SECONDS: Final = 5.0  # after which a silent server counts as away
POOL_SIZE: Final = 64  # connections of one process's event loop
POOL_WAIT_SECONDS: Final = 10.0  # for a free one of them

_SCHEMES = ("redis", "rediss", "unix")


def open_async(url: str, *, max_connections: int = POOL_SIZE) -> AsyncRedis:
    """A client for one event loop. Connects when first used; close it with `aclose()`.

    Who finds all connections in use waits for one. Raises SettingsError for a URL of a scheme
    that is not supported.
    """
    pool = BlockingConnectionPool.from_url(
        _supported(url),
        max_connections=max_connections,
        timeout=POOL_WAIT_SECONDS,
        retry=AsyncRetry(NoBackoff(), 0),
        socket_timeout=ANSWER_SECONDS,
        **_COMMON,
    )
    return AsyncRedis.from_pool(pool)


def open_sync(
    url: str,
    *,
    blocks_for: float = 0.0,
    on_connect: Callable[[AbstractConnection], None] | None = None,
) -> Redis:
    """A client that any number of threads may share, for RQ. Connects when first used; close
    it with `close()`.

    `blocks_for` is the longest, in seconds, that a blocking command will be asked to wait.
    `on_connect` is called with each new connection, ready for use. Raises SettingsError for a
    URL of a scheme that is not supported.
    """

    def announce(connection: AbstractConnection) -> None:
        connection.on_connect()  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
        if on_connect is not None:
            on_connect(connection)

    pool = ConnectionPool.from_url(
        _supported(url),
        retry=Retry(NoBackoff(), 0),
        socket_timeout=ANSWER_SECONDS + blocks_for,
        redis_connect_func=announce,
        **_COMMON,
    )
    return Redis.from_pool(pool)


# A command that may have reached the server is never sent again from here: whether that would
# do harm is known only to who sent it. A connection that the server closed while it lay idle is
# noticed and replaced before it is used.
#
# The protocol is pinned because RESP3 gives some replies another shape.
_COMMON: Final[dict[str, Any]] = {
    "socket_connect_timeout": CONNECT_SECONDS,
    "protocol": 2,
    "client_name": "coursewire",
    "decode_responses": False,
}


def _supported(url: str) -> str:
    scheme = urlsplit(url).scheme
    if scheme not in _SCHEMES:
        raise SettingsError(
            f"COURSEWIRE_REDIS_URL begins with {scheme}://, which this version cannot connect "
            "to; give a redis://, rediss:// or unix:// address"
        )
    return url
