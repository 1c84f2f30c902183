"""The running processes, their encryption keys, and their allowed targets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, cast

import msgspec
from redis.exceptions import RedisError

from service.storage.redis import keys
from service.storage.redis.keys import Key
from service.storage.redis.scripts import Script, run

if TYPE_CHECKING:
    from redis.asyncio import Redis

INTERVAL_SECONDS: Final = 10.0  # between two registrations of a process
GONE_MS: Final = 45_000  # without a registration until it counts as ended

_encode = msgspec.json.encode


class Process(msgspec.Struct, frozen=True, order=True):
    """A process: its name, the names of its keys, the encrypting one first, and the targets that
    its address guard allows. `name` begins with the part, such as `worker`."""

    name: str
    key_names: tuple[str, ...]
    allowed_targets: tuple[str, ...] = ()


_decode = msgspec.json.Decoder(Process).decode


class RegisterProcess(Script[None]):
    """Registers a running process. It counts as ended after `lives_ms`, at once if that is 0."""

    processes: Key = keys.PROCESSES
    process: bytes
    lives_ms: int


class Processes:
    """Registers and lists processes."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    @asynccontextmanager
    async def announced(self, process: Process) -> AsyncIterator[None]:
        """Registers this process while it runs. Errors of Redis are ignored."""
        task = asyncio.create_task(self._go_on_saying(process))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            with suppress(RedisError, OSError):
                await self._say(process, 0)

    async def alive(self) -> list[Process]:
        """The recently registered processes."""
        seconds, microseconds = await self._redis.time()
        now = int(seconds) * 1000 + int(microseconds) // 1000
        found = cast(
            "list[bytes]",
            await self._redis.zrange(keys.PROCESSES, f"({now}", "+inf", byscore=True),
        )
        return sorted(_decode(one) for one in found)

    async def _go_on_saying(self, process: Process) -> None:
        while True:
            with suppress(RedisError, OSError):
                await self._say(process, GONE_MS)
            await asyncio.sleep(INTERVAL_SECONDS)

    async def _say(self, process: Process, milliseconds: int) -> None:
        await run(self._redis, RegisterProcess(process=_encode(process), lives_ms=milliseconds))
