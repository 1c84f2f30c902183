"""Reads what several requests ask for at the same time in one round trip."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")

_MOST = 200  # keys of one round trip


class Together(Generic[Key, Value]):
    """Under load a command of its own for each request costs more than everything else about it.

    Who asks while nothing is being read is read for at once; who asks meanwhile is read for
    together, as soon as that has come back. So nobody gets what was read before they asked.
    """

    def __init__(self, read: Callable[[Sequence[Key]], Awaitable[Sequence[Value]]]) -> None:
        self._read = read
        self._waiting: list[tuple[Key, asyncio.Future[Value]]] = []
        self._reading: asyncio.Task[None] | None = None

    async def get(self, key: Key) -> Value:
        """The value of a key. Raises what reading it raises."""
        future: asyncio.Future[Value] = asyncio.get_running_loop().create_future()
        self._waiting.append((key, future))
        if self._reading is None:
            # In a context of its own: it serves others than the request that began it.
            self._reading = asyncio.create_task(self._read_on(), context=Context())
        return await future

    async def _read_on(self) -> None:
        try:
            while self._waiting:
                asked, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
                await self._answer(asked)
        finally:
            self._reading = None

    async def _answer(self, asked: list[tuple[Key, asyncio.Future[Value]]]) -> None:
        try:
            values = await self._read([key for key, _ in asked])
        except BaseException as error:
            for _, future in asked:
                if not future.done():
                    future.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        for (_, future), value in zip(asked, values, strict=True):
            if not future.done():
                future.set_result(value)
