"""The only place that opens connections to Redis or Valkey."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
from hiredis import pack_command as pack
from redis import ConnectionPool, Redis
from redis.asyncio import BlockingConnectionPool
from redis.asyncio import Redis as AsyncRedis
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
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from service.storage.batching import BatchingRedis

CONNECT_SECONDS: Final = 3.0
ANSWER_SECONDS: Final = 5.0  # after which a silent server counts as away
POOL_SIZE: Final = 64  # connections of one process's event loop
POOL_WAIT_SECONDS: Final = 10.0  # for a free one of them


class NotServingError(ConnectionError):
    """The server answers, but does not do what it is there for at present: it is a replica, has
    too few replicas, cannot write its files, or is busy with a script.

    A kind of ConnectionError, because it is to be waited for like a server that is away, and
    because the connection is closed: the next one may lead to the server that took its place.
    """


def open_async(url: str, *, max_connections: int = POOL_SIZE) -> AsyncRedis:
    """A client for one event loop. Connects when first used; close it with `aclose()`.

    Who finds all connections in use waits for one.
    """
    if (watched := _watched_by_sentinels(url)) is not None:
        sentinels = _AsyncSentinels(  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
            watched.sentinels, socket_connect_timeout=CONNECT_SECONDS, socket_timeout=ANSWER_SECONDS
        )
        master: _WatchedRedis = sentinels.master_for(
            watched.service,
            _WatchedRedis,
            _WatchedPool,
            max_connections=max_connections,
            timeout=POOL_WAIT_SECONDS,
            retry=AsyncRetry(NoBackoff(), 0),
            socket_timeout=ANSWER_SECONDS,
            **watched.login,
            **_COMMON,
        )
        master.watchers = sentinels.sentinels
        _have(master.connection_pool, _AsyncWary, _Packing)
        return master
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=max_connections,
        timeout=POOL_WAIT_SECONDS,
        retry=AsyncRetry(NoBackoff(), 0),
        socket_timeout=ANSWER_SECONDS,
        **_COMMON,
    )
    _have(pool, _AsyncWary, _Packing)
    return BatchingRedis.from_pool(pool)


def open_sync(
    url: str,
    *,
    blocks_for: float = 0.0,
    on_connect: Callable[[AbstractConnection], None] | None = None,
) -> Redis:
    """A client that any number of threads may share, for RQ. Connects when first used; close
    it with `close()`.

    `blocks_for` is the longest, in seconds, that a blocking command will be asked to wait.
    `on_connect` is called with each new connection, ready for use.
    """

    def announce(connection: AbstractConnection) -> None:
        connection.on_connect()  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
        if on_connect is not None:
            on_connect(connection)

    if (watched := _watched_by_sentinels(url)) is not None:
        sentinels = _Sentinels(  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
            watched.sentinels, socket_connect_timeout=CONNECT_SECONDS, socket_timeout=ANSWER_SECONDS
        )
        master: Redis = sentinels.master_for(  # type: ignore[no-untyped-call]  # the same
            watched.service,
            Redis,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=ANSWER_SECONDS + blocks_for,
            redis_connect_func=announce,
            **watched.login,
            **_COMMON,
        )
        _have(master.connection_pool, _Wary)
        return master
    pool = ConnectionPool.from_url(
        url,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=ANSWER_SECONDS + blocks_for,
        redis_connect_func=announce,
        **_COMMON,
    )
    _have(pool, _Wary)
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


class _Packing(AbstractAsyncConnection):
    """Writes commands with hiredis, in a sixth of the time that redis-py's asynchronous
    connections take for it. Its synchronous ones do the same."""

    def pack_command(self, *args: Any) -> list[bytes]:
        """The bytes of one command. Its name may be several words."""
        name = args[0].encode() if isinstance(args[0], str) else args[0]
        try:
            return [pack((*name.split(), *args[1:]))]
        except TypeError:
            # For what it does not know, the slow way has the better words.
            return super().pack_command(*args)


# --- answers that mean: not now, or not here -----------------------------------------------------

# Redis before 7 wraps what a command in a script was answered in an error of its own. UNBLOCKED is
# what those hear who wait for a job while the server is demoted.
_NOT_SERVING: Final = re.compile(r"(?:^|-)(?:READONLY|MISCONF|NOREPLICAS|BUSY|UNBLOCKED) ")


def _translated(error: ResponseError) -> ResponseError | NotServingError:
    if isinstance(error, (ReadOnlyError, MasterDownError)) or _NOT_SERVING.search(str(error)):
        return NotServingError(str(error))
    return error


class _AsyncWary:
    """Added to a kind of connection: closes it where the server does not serve."""

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """The server's next answer. Raises NotServingError."""
        try:
            return await super().read_response(*args, **kwargs)  # type: ignore[misc]  # the kind's
        except ResponseError as error:
            if (translated := _translated(error)) is error:
                raise
            await self.disconnect()  # type: ignore[attr-defined]  # the kind's
            raise translated from error


class _Wary:
    """The same of connections that block."""

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """The server's next answer. Raises NotServingError."""
        try:
            return super().read_response(*args, **kwargs)  # type: ignore[misc]  # the kind's
        except ResponseError as error:
            if (translated := _translated(error)) is error:
                raise
            self.disconnect()  # type: ignore[attr-defined]  # the kind's
            raise translated from error


def _have(pool: Any, *traits: type) -> None:
    """Gives the connections of the pool these traits; the URL has decided on their kind."""
    pool.connection_class = _kind_with(pool.connection_class, *traits)


@cache
def _kind_with(kind: type, *traits: type) -> type:
    return type(f"Our{kind.__name__}", (*traits, kind), {})


# --- sentinels -----------------------------------------------------------------------------------


def _no_primary(service: str, error: Exception) -> str:
    """What redis-py says of it in a line that can be read: it repeats every client that it asked
    with, in whole."""
    reasons = sorted(set(re.findall(r" - (\w+:\w+)", str(error))))
    told = f" ({', '.join(reasons)})" if reasons else ""
    return f"none of the sentinels names a primary of {service!r} that is up{told}"


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
    """A pool that asks the sentinels for the address, and where one waits for a connection."""


class _WatchedRedis(BatchingRedis):
    """A client that closes its connections to the sentinels together with its own."""

    watchers: Sequence[AsyncRedis] = ()

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Closes all of them."""
        await super().aclose(close_connection_pool)
        for watcher in self.watchers:
            await watcher.aclose()


class _Watched(msgspec.Struct, frozen=True):
    """A server that sentinels watch: where they are, what they call it, how to log in to it."""

    sentinels: list[tuple[str, int]]
    service: str
    login: dict[str, Any]


def _watched_by_sentinels(url: str) -> _Watched | None:
    """What a URL `sentinel://USER:PASSWORD@host:port,host:port/DB?service=NAME` says; None for
    any other. The settings have checked its form."""
    parts = urlsplit(url)
    if parts.scheme != "sentinel":
        return None
    user, _, hosts = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    addresses = [host.rpartition(":") for host in hosts.split(",")]
    return _Watched(
        sentinels=[(host.strip("[]"), int(port)) for host, _, port in addresses],
        service=parse_qs(parts.query)["service"][0],
        login={
            "db": int(parts.path.strip("/") or 0),
            "username": unquote(name) or None,
            "password": unquote(password) or None,
        },
    )
