"""The only module that opens connections to Redis or Valkey."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, Final

from hiredis import pack_command as pack
from redis import Connection, ConnectionPool, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio import BlockingConnectionPool
from redis.asyncio import Connection as AsyncConnection
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio import SSLConnection as AsyncSSLConnection
from redis.asyncio import UnixDomainSocketConnection as AsyncUnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection as AbstractAsyncConnection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import MasterNotFoundError as AsyncMasterNotFoundError
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.asyncio.sentinel import SentinelConnectionPool as AsyncSentinelConnectionPool
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.exceptions import (
    ConnectionError,  # noqa: A004 - redis's own name
    MasterDownError,
    ReadOnlyError,
    ResponseError,
)
from redis.exceptions import TimeoutError as SilentError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from service.redis_url import RedisAddress, read_redis_url
from service.storage.redis.auto_pipeline import BatchingRedis

CONNECT_SECONDS: Final = 3.0
ANSWER_SECONDS: Final = 5.0  # after which a silent server counts as unreachable
POOL_SIZE: Final = 64  # connections of one process's event loop
POOL_WAIT_SECONDS: Final = 10.0  # for a free connection


class NotServingError(ConnectionError):
    """The server answers, but cannot serve at present: it is a replica, has too few replicas,
    cannot write its files, or is busy with a script.

    A kind of ConnectionError, because callers wait for it like for an unreachable server, and
    because the connection is closed: the next one may lead to the server that replaced it.
    """


def open_async(url: str, *, max_connections: int = POOL_SIZE) -> AsyncRedis:
    """A client for one event loop. It connects at first use; close it with `aclose()`. If all
    connections are in use, a command waits for one."""
    address = read_redis_url(url)
    settings = _settings(address) | {"retry": AsyncRetry(NoBackoff(), 0)}
    pool_settings: dict[str, Any] = {
        "max_connections": max_connections,
        "timeout": POOL_WAIT_SECONDS,
    }
    if address.scheme == "sentinel":
        sentinels = _AsyncSentinels(  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
            list(address.sentinels), sentinel_kwargs=_sentinel_settings(address)
        )
        master: _WatchedRedis = sentinels.master_for(
            address.service, _WatchedRedis, _WatchedPool, **settings, **pool_settings
        )
        master.watchers = sentinels.sentinels
        _have(master.connection_pool, _AsyncWary, _Packing, _Cancellable)
        return master
    kinds: dict[str, type[AbstractAsyncConnection]] = {
        "redis": AsyncConnection,
        "rediss": AsyncSSLConnection,
        "unix": AsyncUnixDomainSocketConnection,
    }
    pool = BlockingConnectionPool(
        connection_class=kinds[address.scheme], **settings, **pool_settings
    )
    _have(pool, _AsyncWary, _Packing, _Cancellable)
    return BatchingRedis.from_pool(pool)


def open_sync(
    url: str,
    *,
    blocks_for: float = 0.0,
    on_connect: Callable[[AbstractConnection], None] | None = None,
) -> Redis:
    """A client that any number of threads may share, for RQ. It connects at first use; close it
    with `close()`. `blocks_for` is the maximum wait of a blocking command, in seconds. `on_connect`
    is called with each new connection, ready for use.
    """

    def announce(connection: AbstractConnection) -> None:
        connection.on_connect()  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
        if on_connect is not None:
            on_connect(connection)

    address = read_redis_url(url)
    settings = _settings(address) | {
        "retry": Retry(NoBackoff(), 0),
        "redis_connect_func": announce,
    }
    settings["socket_timeout"] += blocks_for
    if address.scheme == "sentinel":
        sentinels = _Sentinels(  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
            list(address.sentinels), sentinel_kwargs=_sentinel_settings(address)
        )
        master: Redis = sentinels.master_for(  # type: ignore[no-untyped-call]  # the same
            address.service, Redis, **settings
        )
        _have(master.connection_pool, _Wary)
        return master
    kinds: dict[str, Callable[..., AbstractConnection]] = {
        "redis": Connection,
        "rediss": SSLConnection,
        "unix": UnixDomainSocketConnection,
    }
    pool = ConnectionPool(connection_class=kinds[address.scheme], **settings)
    _have(pool, _Wary)
    return Redis.from_pool(pool)


# A command that may have reached the server is not repeated here, because only the caller knows
# whether that is safe. A connection that the server closed while idle is detected and replaced
# before its use. The protocol is pinned because RESP3 changes the form of some replies.
_COMMON: Final[dict[str, Any]] = {
    "protocol": 2,
    "client_name": "coursewire",
    "driver_info": None,  # not needed, and requires its own right
    "decode_responses": False,
}


def _timeouts(address: RedisAddress) -> dict[str, float]:
    defaults = {"socket_connect_timeout": CONNECT_SECONDS, "socket_timeout": ANSWER_SECONDS}
    return {name: address.options.get(name, default) for name, default in defaults.items()}


def _sentinel_settings(address: RedisAddress) -> dict[str, Any]:
    return {**_timeouts(address), "driver_info": None}


def _settings(address: RedisAddress) -> dict[str, Any]:
    """The parameters of each connection to the server. The URL is parsed completely, because
    redis-py would accept any option in it, even one that undoes the pinned ones."""
    where: dict[str, Any] = {}
    if address.scheme == "unix":
        where = {"path": address.path}
    elif address.scheme != "sentinel":
        where = {"host": address.host, "port": address.port}
    return {
        **where,
        "db": address.db,
        "username": address.username,
        "password": address.password,
        **address.options,
        **_timeouts(address),
        **_COMMON,
    }


class _Packing(AbstractAsyncConnection):
    """Encodes commands with hiredis, in a sixth of the time of redis-py's asynchronous connections.
    Its synchronous ones do the same."""

    def pack_command(self, *args: Any) -> list[bytes]:
        """The bytes of one command. Its name may be several words."""
        name = args[0].encode() if isinstance(args[0], str) else args[0]
        try:
            return [pack((*name.split(), *args[1:]))]
        except TypeError:
            # hiredis cannot encode it; redis-py's own encoder has a better error message.
            return super().pack_command(*args)


class _Cancellable(AbstractAsyncConnection):
    """Ends the sending when its task is cancelled.

    redis-py limits the time with `wait_for`. Before Python 3.12, `wait_for` ignores a cancellation
    that comes when everything has been sent.
    """

    async def send_packed_command(
        self, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        """Sends packed commands. Raises ConnectionError or TimeoutError."""
        seconds, self.socket_timeout = self.socket_timeout, None
        try:
            async with asyncio.timeout(seconds):
                await super().send_packed_command(command, check_health)
        except TimeoutError:
            raise SilentError("the server did not read the command in time") from None
        finally:
            self.socket_timeout = seconds


# --- errors: not now, or not here ----------------------------------------------------------------

# Redis before 7 wraps the reply to a command in a script in its own error. Clients that wait for a
# job get UNBLOCKED when the server is demoted.
_NOT_SERVING: Final = re.compile(r"(?:^|-)(?:READONLY|MISCONF|NOREPLICAS|BUSY|UNBLOCKED) ")


def _translated(error: ResponseError) -> ResponseError | NotServingError:
    if isinstance(error, (ReadOnlyError, MasterDownError)) or _NOT_SERVING.search(str(error)):
        return NotServingError(str(error))
    return error


class _AsyncWary:
    """Added to a kind of connection: closes it if the server cannot serve."""

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """The server's next reply. Raises NotServingError."""
        try:
            return await super().read_response(*args, **kwargs)  # type: ignore[misc]  # the kind's
        except ResponseError as error:
            if (translated := _translated(error)) is error:
                raise
            await self.disconnect()  # type: ignore[attr-defined]  # the kind's
            raise translated from error


class _Wary:
    """The same for connections that block."""

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """The server's next reply. Raises NotServingError."""
        try:
            return super().read_response(*args, **kwargs)  # type: ignore[misc]  # the kind's
        except ResponseError as error:
            if (translated := _translated(error)) is error:
                raise
            self.disconnect()  # type: ignore[attr-defined]  # the kind's
            raise translated from error


def _have(pool: Any, *traits: type) -> None:
    """Adds these traits to the pool's connections; the URL has determined their kind."""
    pool.connection_class = _kind_with(pool.connection_class, *traits)


@cache
def _kind_with(kind: type, *traits: type) -> type:
    return type(f"Our{kind.__name__}", (*traits, kind), {})


# --- sentinels -----------------------------------------------------------------------------------


def _no_primary(service: str, error: Exception) -> str:
    """A readable form of redis-py's error, which repeats every client that it asked, in full."""
    reasons = sorted(set(re.findall(r" - (\w+:\w+)", str(error))))
    listed = f" ({', '.join(reasons)})" if reasons else ""
    return f"none of the sentinels names a primary of {service!r} that is up{listed}"


class _AsyncSentinels(AsyncSentinel):
    async def discover_master(self, service_name: str) -> tuple[str, int]:
        try:
            found: tuple[str, int] = await super().discover_master(service_name)
        except AsyncMasterNotFoundError as error:
            raise AsyncMasterNotFoundError(_no_primary(service_name, error)) from None
        return found


class _Sentinels(Sentinel):
    def discover_master(self, service_name: str) -> tuple[str, int]:
        try:
            found: tuple[str, int] = super().discover_master(service_name)  # type: ignore[no-untyped-call]
        except MasterNotFoundError as error:
            raise MasterNotFoundError(_no_primary(service_name, error)) from None
        return found


class _WatchedPool(AsyncSentinelConnectionPool, BlockingConnectionPool):
    """A pool that gets the address from the sentinels, and waits for a free connection."""


class _WatchedRedis(BatchingRedis):
    """A client that closes its connections to the sentinels together with its own."""

    watchers: Sequence[AsyncRedis] = ()

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Closes all of them."""
        await super().aclose(close_connection_pool)
        for watcher in self.watchers:
            await watcher.aclose()
