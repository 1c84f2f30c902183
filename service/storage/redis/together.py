"""Does together what coroutines ask for in one turn of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

from redis.exceptions import ResponseError

from service.storage.redis.auto_pipeline import settle

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class Together(Generic[Asked, Answer]):
    """Calls `answer` with several questions at once, which returns as many answers. Their weights
    add up to at most `most`, unless one alone weighs more.

    If the server refuses some questions together, `answer` is called with each alone, so that a
    broken one fails alone. So it must be harmless to repeat.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Asked]], Awaitable[Sequence[Answer]]],
        most: int,
        weigh: Callable[[Asked], int] = lambda _: 1,
    ) -> None:
        self._answer = answer
        self._most = most
        self._weigh = weigh
        self._asked: list[tuple[Asked, asyncio.Future[Answer]]] = []
        self._running: set[asyncio.Task[None]] = set()

    async def ask(self, question: Asked) -> Answer:
        """The answer to one question. A caller that is cancelled before the call asks nothing."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        if not self._asked:
            loop.call_soon(self._begin, context=Context())
        self._asked.append((question, future))
        return await future

    def _begin(self) -> None:
        asked = [one for one in self._asked if not one[1].cancelled()]
        self._asked = []
        first = total = 0
        for at, (question, _) in enumerate(asked):
            weight = self._weigh(question)
            if total and total + weight > self._most:
                self._start(asked[first:at])
                first, total = at, 0
            total += weight
        if asked:
            self._start(asked[first:])

    def _start(self, asked: Sequence[tuple[Asked, asyncio.Future[Answer]]]) -> None:
        task = asyncio.create_task(self._settle(asked))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _settle(self, asked: Sequence[tuple[Asked, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._answer([question for question, _ in asked])
            for (_, future), answer in zip(asked, answers, strict=True):
                settle(future, answer)
        except Exception as error:  # noqa: BLE001 - each caller raises its own copy
            if isinstance(error, ResponseError) and len(asked) > 1:
                for one in asked:
                    await self._settle([one])
                return
            for _, future in asked:
                settle(future, error)
