"""Commands of many coroutines, on a real server."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis import DataError
from redis.asyncio import Redis
from redis.exceptions import (
    BusyLoadingError,
    ConnectionError,  # noqa: A004 - redis's own name
    ResponseError,
    TimeoutError,  # noqa: A004 - redis's own name
)

from service.storage.redis import client as connections
from service.storage.redis.client import NotServingError, open_async


@pytest.fixture
async def redis(valkey_admin_url: str) -> AsyncIterator[Redis]:
    client = open_async(valkey_admin_url)
    await client.flushall()
    yield client
    await client.aclose()


async def calls(redis: Redis) -> int:
    """How often the server has read from connections; this call included."""
    return int((await redis.info("stats"))["total_reads_processed"])


async def test_what_coroutines_ask_for_at_once_goes_in_one_write(redis):
    await redis.set("a", "0")
    before = await calls(redis)
    answers = await asyncio.gather(*(redis.incr("a") for _ in range(100)))
    assert await calls(redis) - before == 2
    assert answers == list(range(1, 101))


async def test_more_than_fit_into_one_are_all_answered_and_each_by_its_own(redis):
    answers = await asyncio.gather(*(redis.set(f"k{n}", n, get=True) for n in range(1_000)))
    assert answers == [None] * 1_000
    found = await asyncio.gather(*(redis.get(f"k{n}") for n in range(1_000)))
    assert found == [b"%d" % n for n in range(1_000)]


async def test_answers_have_the_shape_that_redis_py_gives_them(redis, valkey_admin_url):
    plain = Redis.from_url(valkey_admin_url, protocol=2)
    await redis.hset("h", mapping={"a": 1, "b": 2.5})
    await redis.zadd("z", {"one": 1, "two": 2})
    await redis.xadd("x", {"f": "v"}, id="1-1")

    async def ask(client: Redis) -> list[Any]:
        return [
            await client.hgetall("h"),
            await client.zrange("z", 0, -1, withscores=True),
            await client.xrange("x"),
            await client.exists("h"),
            await client.config_get("maxmemory-policy"),
            await client.script_exists("0" * 40),
            await client.hget("h", "none"),
            (await client.info("server"))["run_id"],
        ]

    assert await ask(redis) == await ask(plain)
    await plain.aclose()


async def test_an_error_is_that_of_its_own_command_alone(redis):
    await redis.set("text", "no list")
    answers = await asyncio.gather(
        redis.set("before", 1),
        redis.lpush("text", "x"),
        redis.set("after", 1),
        redis.lpush("text", "x"),
        return_exceptions=True,
    )
    assert answers[0] is answers[2] is True
    assert all(isinstance(answers[n], ResponseError) for n in (1, 3))
    assert answers[1] is not answers[3]


async def test_what_cannot_be_sent_is_told_to_whoever_asked_and_disturbs_nobody(redis):
    answers = await asyncio.gather(
        redis.set("a", 1), redis.set("b", {}), redis.get("a"), return_exceptions=True
    )
    assert answers[0] is True
    assert isinstance(answers[1], DataError)
    assert "dict" in str(answers[1])
    assert answers[2] == b"1"


async def test_who_gives_up_takes_nobody_along(redis):
    await redis.execute_command("CLIENT PAUSE", 200, "WRITE")
    given_up = asyncio.create_task(redis.incr("a"))
    others = [asyncio.create_task(redis.incr("a")) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    given_up.cancel()
    assert sorted(await asyncio.gather(*others)) in ([1, 2, 3], [2, 3, 4])
    with pytest.raises(asyncio.CancelledError):
        await given_up


async def test_who_has_given_up_before_anything_was_sent_is_not_heard(redis):
    task = asyncio.create_task(redis.incr("a"))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await redis.get("a") is None


async def test_commands_that_wait_hold_up_nobody(redis):
    waiting = asyncio.create_task(redis.blpop(["list"], 20))
    reading = asyncio.create_task(redis.xread({"stream": "$"}, block=20_000))

    async def both_wait() -> bool:
        return int((await redis.info("clients"))["blocked_clients"]) == 2

    async with asyncio.timeout(20):
        while not await both_wait():
            pass
    assert await redis.ping()
    await asyncio.gather(redis.rpush("list", "x"), redis.xadd("stream", {"a": "b"}))
    assert await waiting == (b"list", b"x")
    assert (await reading)[0][0] == b"stream"


async def test_a_server_that_is_silent_is_away_for_all_who_asked_it(valkey_admin_url, monkeypatch):
    monkeypatch.setattr(connections, "ANSWER_SECONDS", 0.2)
    redis = open_async(valkey_admin_url)
    await redis.execute_command("CLIENT PAUSE", 5_000, "WRITE")
    answers = await asyncio.gather(*(redis.incr("a") for _ in range(5)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {TimeoutError}
    await redis.client_unpause()
    assert await redis.ping()
    await redis.aclose()


async def test_one_refusal_to_serve_is_no_answer_for_what_was_asked_after_it(redis):
    await redis.config_set("min-replicas-to-write", 1)
    try:
        answers = await asyncio.gather(
            redis.get("a"), redis.set("a", 1), redis.get("a"), return_exceptions=True
        )
        assert answers[0] is None
        assert isinstance(answers[1], NotServingError)
        assert isinstance(answers[2], ConnectionError)
    finally:
        await redis.config_set("min-replicas-to-write", 0)
    assert await redis.set("a", 1)


async def test_a_closed_client_leaves_nobody_waiting(valkey_admin_url):
    redis = open_async(valkey_admin_url)
    await redis.execute_command("CLIENT PAUSE", 300, "WRITE")
    asked = [asyncio.create_task(redis.incr("a")) for _ in range(3)]
    for _ in range(5):
        await asyncio.sleep(0)
    await redis.aclose()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(answer) for answer in answers} <= {ConnectionError, TimeoutError}


@pytest.mark.parametrize("kind", [ResponseError, NotServingError, BusyLoadingError, TimeoutError])
def test_errors_can_be_given_to_several(kind):
    copied = copy.copy(kind("what the server said"))
    assert type(copied) is kind
    assert str(copied) == "what the server said"


async def test_a_cancelled_task_ends_although_its_commands_were_just_sent(redis):
    await redis.ping()  # connected
    for turns in range(30):  # of the loop before the cancellation
        async with redis.pipeline(transaction=False) as pipeline:
            sending = asyncio.create_task(pipeline.ping().execute())
            for _ in range(turns):
                await asyncio.sleep(0)
            cancelled = sending.cancel()
            await asyncio.wait({sending})
            assert sending.cancelled() == cancelled
