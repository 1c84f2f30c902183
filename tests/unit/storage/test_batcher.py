"""Items that are submitted in one iteration of the event loop are processed in batches."""

from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import (
    ConnectionError,  # noqa: A004 - redis's own name
    ResponseError,
)

from service.storage.redis.batcher import Batcher


class Server:
    """Doubles the items of a batch, refuses zero, and records the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.away = False

    async def process(self, items):
        self.batches.append(list(items))
        await asyncio.sleep(0)
        if self.away:
            raise ConnectionError("away")
        if 0 in items:
            raise ResponseError("zero")
        return [2 * item for item in items]


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def batcher(server):
    return Batcher(server.process, 3)


async def test_each_item_of_an_iteration_gets_its_own_result(server, batcher):
    assert await asyncio.gather(*map(batcher.submit, (1, 2, 3, 4))) == [2, 4, 6, 8]
    assert await batcher.submit(5) == 10
    assert server.batches == [[1, 2, 3], [4], [5]]


async def test_heavy_items_form_smaller_batches(server):
    batcher = Batcher(server.process, 5, lambda item: item)
    results = await asyncio.gather(*map(batcher.submit, (1, 3, 2, 9, 1, 4, 1)))
    assert results == [2, 6, 4, 18, 2, 8, 2]
    assert server.batches == [[1, 3], [2], [9], [1, 4], [1]]


async def test_a_refused_item_fails_alone(server, batcher):
    found = await asyncio.gather(*map(batcher.submit, (1, 0, 3)), return_exceptions=True)
    assert (found[0], found[2]) == (2, 6)
    assert isinstance(found[1], ResponseError)
    assert server.batches == [[1, 0, 3], [1], [0], [3]]


async def test_an_unreachable_server_fails_each_item_with_its_own_error(server, batcher):
    server.away = True
    first, second = await asyncio.gather(*map(batcher.submit, (1, 2)), return_exceptions=True)
    assert isinstance(first, ConnectionError)
    assert isinstance(second, ConnectionError)
    assert first is not second
    assert server.batches == [[1, 2]]


async def test_the_item_of_a_cancelled_caller_is_not_processed(server, batcher):
    before, during = asyncio.create_task(batcher.submit(1)), asyncio.create_task(batcher.submit(2))
    await asyncio.sleep(0)
    before.cancel()
    other = asyncio.create_task(batcher.submit(3))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    during.cancel()
    assert await other == 6
    assert server.batches == [[2], [3]]
