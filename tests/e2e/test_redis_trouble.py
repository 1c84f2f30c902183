"""What Redis can come up with, on a real server under load: everything waits, the status says so,
all goes on by itself, and nothing is lost, invented or sent out of order."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from service.storage.redis import keys
from tests.e2e.conftest import House, Process, Subscriber, until
from tests.e2e.test_main_job import ids, initial_load, received

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

COURSES = 600
PARTS = ("api", "worker", "scheduler")

Trouble = Callable[[House, Redis], AbstractAsyncContextManager[None]]


async def reasons(house: House) -> str:
    """What the status has to say, empty where all is well or it says nothing at present."""
    with contextlib.suppress(httpx.TransportError):
        found = await house.call("GET", "/v1/status")
        return "; ".join(found["reasons"])
    return ""


async def said(house: House, text: str) -> None:
    async def says() -> bool:
        return text in await reasons(house)

    await until(says, seconds=30, what=f"a status of {text!r}\n{house.logs()}")


# --- the troubles: each lasts until the status speaks of it ---------------------------------------


@asynccontextmanager
async def restarted(house: House, _: Redis) -> AsyncIterator[None]:
    await asyncio.to_thread(house.processes["valkey"].stop)
    yield
    house.processes["valkey"].start()


@asynccontextmanager
async def loading(house: House, redis: Redis) -> AsyncIterator[None]:
    """It is back, but for seconds answers nothing but that it loads."""
    await redis.bgrewriteaof()
    await until(lambda: _rewritten(redis), seconds=20, what=f"a rewritten file\n{house.logs()}")
    valkey = house.processes["valkey"]
    await asyncio.to_thread(valkey.stop)
    house.processes["valkey"] = valkey.like(
        "valkey",
        *("--key-load-delay", "50000"),  # µs, some 60 keys
        *("--loading-process-events-interval-bytes", "1024"),
    )
    house.processes["valkey"].start()
    yield


async def _rewritten(redis: Redis) -> bool:
    return not (await redis.info("persistence"))["aof_rewrite_in_progress"]


@asynccontextmanager
async def frozen(house: House, _: Redis) -> AsyncIterator[None]:
    """Connections are there, and nothing comes back."""
    house.processes["valkey"].send(signal.SIGSTOP)
    yield
    house.processes["valkey"].send(signal.SIGCONT)


@asynccontextmanager
async def demoted(_: House, redis: Redis) -> AsyncIterator[None]:
    """It has become a replica: what is read is there, nothing can be written."""
    await redis.replicaof("127.0.0.1", "1")
    yield
    await redis.replicaof("NO", "ONE")


@asynccontextmanager
async def orphaned(_: House, redis: Redis) -> AsyncIterator[None]:
    """It has become a replica that does not even let read."""
    await redis.config_set("replica-serve-stale-data", "no")
    await redis.replicaof("127.0.0.1", "1")
    yield
    await redis.replicaof("NO", "ONE")
    await redis.config_set("replica-serve-stale-data", "yes")


@asynccontextmanager
async def alone(_: House, redis: Redis) -> AsyncIterator[None]:
    """It insists on a replica, and has none."""
    await redis.config_set("min-replicas-to-write", 1)
    yield
    await redis.config_set("min-replicas-to-write", 0)


@asynccontextmanager
async def full(_: House, redis: Redis) -> AsyncIterator[None]:
    await redis.config_set("maxmemory", 1)
    yield
    await redis.config_set("maxmemory", 0)


@asynccontextmanager
async def slow(_: House, redis: Redis) -> AsyncIterator[None]:
    """Every answer takes its time, though none too long."""

    # answers come between two pauses
    async with _repeated(lambda: redis.client_pause(300), seconds=0.35):
        yield


@asynccontextmanager
async def forgetful(_: House, redis: Redis) -> AsyncIterator[None]:
    """It forgets every script again and again."""

    async with _repeated(redis.script_flush, seconds=0.01):
        yield


@asynccontextmanager
async def _repeated(act: Callable[[], Awaitable[Any]], *, seconds: float) -> AsyncIterator[None]:
    over = asyncio.Event()

    async def repeat() -> None:
        while not over.is_set():
            await act()
            await asyncio.sleep(seconds)  # the pace

    repeating = asyncio.create_task(repeat())
    try:
        yield
    finally:
        over.set()  # redis-py can ignore a cancellation before Python 3.12
        await repeating


TROUBLES: tuple[tuple[Trouble, str], ...] = (
    (restarted, "Redis does not answer"),
    (loading, "Redis is still loading its data"),
    (frozen, "Redis does not answer"),
    (demoted, "read-only replica"),
    (orphaned, "Redis returned an error"),
    (alone, "fewer replicas keep up"),
    (full, "of its memory limit"),
    (slow, ""),
    (forgetful, ""),
)


async def test_whatever_trouble_redis_makes_everything_waits_and_goes_on(
    tmp_path: Path, subscriber: Subscriber
):
    house = House(tmp_path, COURSES)
    try:
        await house.start()
        await initial_load(house, subscriber, COURSES)
        await received(house, subscriber, COURSES)
        await house.drained()
        await house.sandbox.post("/control/faults", json={"kind": "delay", "seconds": 0.3})
        parts: dict[str, Process] = {name: house.processes[name] for name in PARTS}
        begun = {name: part.pid for name, part in parts.items()}
        for trouble, reason in TROUBLES:
            await check(house, subscriber, trouble, reason)
            assert {name: part.pid for name, part in parts.items() if part.running} == begun
        for name, part in parts.items():
            assert "Traceback" not in part.log(), name
            code = await asyncio.to_thread(part.stop)
            assert code == (-signal.SIGTERM if name == "api" else 0)  # as uvicorn ends
    finally:
        await house.close()
    assert subscriber.conflicts == []
    subscriber.check_order()


async def check(house: House, subscriber: Subscriber, trouble: Trouble, reason: str) -> None:
    start = len(subscriber.received)
    changes = await house.change(
        *({"op": op, "count": 3} for op in ("edit", "delete", "vanish", "provider"))
    )

    async def in_the_middle_of_it() -> None:
        lease = keys.lease("polls", house.integration_id)
        async with Redis.from_url(house.redis_url) as redis:
            await until(lambda: redis.exists(lease), seconds=30, what="a poll under way")
            async with trouble(house, redis):
                if reason:
                    await said(house, reason)
                else:
                    await until(
                        lambda: len(subscriber.received) >= start + len(changes),
                        seconds=60,
                        what=f"events all the same\n{house.logs()}",
                    )
        await house.ready()

    await house.poll("full", victim=in_the_middle_of_it)
    await house.drained()
    deleted = ids(changes, "delete", "vanish")
    assert sorted(
        (event["data"]["course_id"], event["type"]) for event in subscriber.received[start:]
    ) == sorted(
        (one["course_id"], f"course.{'deleted' if one['course_id'] in deleted else 'updated'}")
        for one in changes
    ), trouble.__name__

    async def well() -> bool:
        return await reasons(house) == ""

    await until(well, seconds=60, what=f"all well after {trouble.__name__}\n{house.logs()}")
