"""Questions of one turn of the event loop are answered together."""

from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import (
    ConnectionError,  # noqa: A004 - redis's own name
    ResponseError,
)

from service.storage.redis.together import Together


class Server:
    """Answers questions with their doubles, refuses zero, and notes what was asked together."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.away = False

    async def answer(self, questions):
        self.calls.append(list(questions))
        await asyncio.sleep(0)
        if self.away:
            raise ConnectionError("away")
        if 0 in questions:
            raise ResponseError("zero")
        return [2 * question for question in questions]


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def together(server):
    return Together(server.answer, 3)


async def test_each_question_of_a_turn_gets_its_own_answer(server, together):
    assert await asyncio.gather(*map(together.ask, (1, 2, 3, 4))) == [2, 4, 6, 8]
    assert await together.ask(5) == 10
    assert server.calls == [[1, 2, 3], [4], [5]]


async def test_heavy_questions_are_asked_in_smaller_groups(server):
    together = Together(server.answer, 5, lambda question: question)
    assert await asyncio.gather(*map(together.ask, (1, 3, 2, 9, 1, 4, 1))) == [2, 6, 4, 18, 2, 8, 2]
    assert server.calls == [[1, 3], [2], [9], [1, 4], [1]]


async def test_a_refused_question_fails_alone(server, together):
    found = await asyncio.gather(*map(together.ask, (1, 0, 3)), return_exceptions=True)
    assert (found[0], found[2]) == (2, 6)
    assert isinstance(found[1], ResponseError)
    assert server.calls == [[1, 0, 3], [1], [0], [3]]


async def test_an_unreachable_server_fails_all_with_errors_of_their_own(server, together):
    server.away = True
    first, second = await asyncio.gather(*map(together.ask, (1, 2)), return_exceptions=True)
    assert isinstance(first, ConnectionError)
    assert isinstance(second, ConnectionError)
    assert first is not second
    assert server.calls == [[1, 2]]


async def test_a_cancelled_caller_asks_nothing_and_disturbs_nobody(server, together):
    before, during = asyncio.create_task(together.ask(1)), asyncio.create_task(together.ask(2))
    await asyncio.sleep(0)
    before.cancel()
    other = asyncio.create_task(together.ask(3))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    during.cancel()
    assert await other == 6
    assert server.calls == [[2], [3]]
