from __future__ import annotations

import asyncio

import pytest

from service.storage.redis.coalesce import Together


class Source:
    """Answers when it is told to, and keeps what it was asked."""

    def __init__(self):
        self.asked = []
        self.go = asyncio.Event()
        self.error = None

    async def read(self, keys):
        self.asked.append(list(keys))
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return [key * 2 for key in keys]


async def ask(together, *keys):
    tasks = [asyncio.create_task(together.get(key)) for key in keys]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


async def test_who_asks_meanwhile_is_read_for_together() -> None:
    source = Source()
    together = Together(source.read)
    tasks = await ask(together, 1)
    tasks += await ask(together, 2, 3, 2)
    assert source.asked == [[1]]
    source.go.set()
    assert await asyncio.gather(*tasks) == [2, 4, 6, 4]
    assert source.asked == [[1], [2, 3, 2]]
    assert await together.get(5) == 10


async def test_a_failure_is_told_to_those_it_concerns_and_ends_nothing() -> None:
    source = Source()
    together = Together(source.read)
    tasks = await ask(together, 1, 2)
    source.error = ValueError("away")
    source.go.set()
    for task in tasks:
        with pytest.raises(ValueError, match="away"):
            await task
    source.error = None
    assert await together.get(3) == 6


async def test_who_goes_away_takes_nobody_along() -> None:
    source = Source()
    together = Together(source.read)
    gone, kept = await ask(together, 1, 2)
    gone.cancel()
    source.go.set()
    assert await kept == 4
    with pytest.raises(asyncio.CancelledError):
        await gone
