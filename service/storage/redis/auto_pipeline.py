"""A client whose coroutines share round trips: the commands of one turn of the event loop are sent
together, on one connection."""

from __future__ import annotations

import asyncio
import copy
from contextvars import Context
from typing import Any, Final

from hiredis import pack_command
from redis.asyncio import Redis
from redis.exceptions import (
    ConnectionError,  # noqa: A004 - redis's own name
    ResponseError,
)
from redis.exceptions import TimeoutError as SilentError

_MOST = 250  # commands of one round trip
_WAITS: Final = frozenset({"XREAD", "XREADGROUP", "BLPOP", "BRPOP", "BLMOVE", "WAIT"})

_Asked = tuple[bytes, asyncio.Future[Any]]


class BatchingRedis(Redis):
    """Sends each command exactly once, like the pool behind it.

    A separate connection, write and read for each command would cost several times as much as the
    command itself. Blocking commands are sent separately, so that other commands do not wait for
    them; so are pipelines.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._asked: list[_Asked] = []
        self._exchanges: set[asyncio.Task[None]] = set()

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """The server's reply. Raises RedisError."""
        if args[0] in _WAITS:
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]  # redis-py's
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if not self._asked:
            loop.call_soon(self._send, context=Context())
        self._asked.append((self._packed(args), future))
        if not options and args[0] not in self.response_callbacks:
            return await future
        return await self.parse_response(_Answer(future), args[0], **options)  # type: ignore[arg-type]  # which reads alike

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Closes the connections; a pending command raises ConnectionError."""
        await super().aclose(close_connection_pool)
        for exchange in self._exchanges:
            exchange.cancel()

    def _packed(self, args: tuple[Any, ...]) -> bytes:
        name = args[0].split() if isinstance(args[0], str) else [args[0]]
        try:
            packed: bytes = pack_command((*name, *args[1:]))
        except TypeError:
            # hiredis cannot encode it; redis-py's own encoder has a better error message.
            encode = self.connection_pool.get_encoder().encode  # type: ignore[no-untyped-call]  # redis-py's
            packed = pack_command((*name, *map(encode, args[1:])))
        return packed

    def _send(self) -> None:
        asked = [one for one in self._asked if not one[1].cancelled()]
        self._asked = []
        for start in range(0, len(asked), _MOST):
            exchange = asyncio.create_task(self._exchange(asked[start : start + _MOST]))
            self._exchanges.add(exchange)
            exchange.add_done_callback(self._exchanges.discard)

    async def _exchange(self, asked: list[_Asked]) -> None:
        pool = self.connection_pool
        try:
            connection = await pool.get_connection()  # type: ignore[no-untyped-call]  # redis-py's
            try:
                await _ask(connection, asked)
            except BaseException:
                await connection.disconnect(nowait=True)  # replies may be left on it
                raise
            finally:
                await pool.release(connection)
        except BaseException as error:
            closed = isinstance(error, asyncio.CancelledError)
            reason = ConnectionError("the client was closed") if closed else error
            for _, future in asked:
                settle(future, reason)
            if not isinstance(error, Exception):
                raise


class _Answer:
    """Replaces a connection where redis-py converts a reply."""

    def __init__(self, future: asyncio.Future[Any]) -> None:
        self._future = future

    async def read_response(self, **_options: Any) -> Any:
        return await self._future


async def _ask(connection: Any, asked: list[_Asked]) -> None:
    """Sends the commands and settles their futures.

    redis-py sets a separate time limit for each reply, which costs more than the reading of most
    replies. This function sets one time limit and extends the limit while replies arrive.
    """
    seconds, clock = connection.socket_timeout, asyncio.get_running_loop().time
    extended_at = clock()
    connection.socket_timeout = None
    try:
        async with asyncio.timeout(seconds) as limit:
            await connection.send_packed_command([packed for packed, _ in asked])
            for _, future in asked:
                settle(future, await _answer(connection))
                if (now := clock()) - extended_at >= seconds / 10:
                    extended_at = now
                    limit.reschedule(now + seconds)
    except TimeoutError:
        raise SilentError(f"the server sent no reply for {seconds:g} s") from None
    finally:
        connection.socket_timeout = seconds


async def _answer(connection: Any) -> Any:
    """The next reply. An error that concerns only its own command is a reply, too."""
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error


def settle(future: asyncio.Future[Any], answer: Any) -> None:
    """Gives a waiting coroutine its answer, which may be an error."""
    if future.done():
        return
    if isinstance(answer, BaseException):
        own = copy.copy(answer)  # an error that is raised in many places mixes up its tracebacks
        own.__context__ = answer.__context__
        future.set_exception(own)
    else:
        future.set_result(answer)
