"""Combines what coroutines submit in one iteration of the event loop into few calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

from redis.exceptions import ResponseError

from service.storage.redis.auto_pipeline import settle

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Calls `process` with batches of items. `process` returns one result for each item.

    The sum of the weights of a batch is at most `most`, except if a single item weighs more. If
    Redis refuses a batch of several items, the batcher calls `process` again with each item alone,
    so that an item with broken data fails alone. Therefore `process` must be idempotent.
    """

    def __init__(
        self,
        process: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        most: int,
        weigh: Callable[[Item], int] = lambda _: 1,
    ) -> None:
        self._process = process
        self._most = most
        self._weigh = weigh
        self._submitted: list[tuple[Item, asyncio.Future[Result]]] = []
        self._running: set[asyncio.Task[None]] = set()

    async def submit(self, item: Item) -> Result:
        """The result for one item. Raises the errors of `process`. An item whose caller is
        cancelled before the call is not processed."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        if not self._submitted:
            loop.call_soon(self._start_all, context=Context())
        self._submitted.append((item, future))
        return await future

    def _start_all(self) -> None:
        submitted = [one for one in self._submitted if not one[1].cancelled()]
        self._submitted = []
        first = total = 0
        for at, (item, _) in enumerate(submitted):
            weight = self._weigh(item)
            if total and total + weight > self._most:
                self._start(submitted[first:at])
                first, total = at, 0
            total += weight
        if submitted:
            self._start(submitted[first:])

    def _start(self, batch: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        task = asyncio.create_task(self._run(batch))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run(self, batch: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._process([item for item, _ in batch])
            for (_, future), result in zip(batch, results, strict=True):
                settle(future, result)
        except Exception as error:  # noqa: BLE001 - each caller raises its own copy
            if isinstance(error, ResponseError) and len(batch) > 1:
                for one in batch:
                    await self._run([one])
                return
            for _, future in batch:
                settle(future, error)
