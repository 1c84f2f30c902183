"""An upgrade as an operator does it: every process is replaced while everything goes on."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator

import httpx
import pytest
from redis.asyncio import Redis

from tests.conftest import free_port
from tests.e2e.conftest import (
    ADMIN_TOKEN,
    UPSTREAM_ID,
    House,
    Subscriber,
    until,
)
from tests.e2e.test_main_job import initial_load, received, states

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

COURSES = 600
DRAIN_SECONDS = 30  # what Kubernetes gives, and more than any process takes
EDITED_AT_ONCE = 5


class Balancer:
    """Sends requests to the APIs that are ready, as what stands before them does."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._ports = [house.api_port]
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}, timeout=60
        )
        self.answers: list[int] = []
        self.pulled: list[str] = []  # ids of events
        self.broken: list[str] = []  # requests that were begun and got no answer

    def add(self, port: int) -> None:
        self._ports.append(port)

    def remove(self, port: int) -> None:
        self._ports.remove(port)

    async def get(self, path: str) -> httpx.Response | None:
        """The answer of an API that takes the request."""
        for port in reversed(self._ports):
            try:
                answer = await self._client.get(f"http://127.0.0.1:{port}{path}")
            except httpx.ConnectError:
                continue  # it does not listen any more, and was asked nothing
            except httpx.HTTPError as error:
                self.broken.append(f"{path}: {error!r}")
                return None
            self.answers.append(answer.status_code)
            return answer
        self.broken.append(f"{path}: nobody listens")
        return None

    async def ask_on(self) -> None:
        while True:
            await self.get("/v1/subscriptions")
            await asyncio.sleep(0.01)

    async def wait_on(self) -> None:
        """Follows the log by long-poll, like a subscriber that pulls."""
        after = ""
        while True:
            answer = await self.get(f"/v1/events?wait=20&limit=100{after}")
            if answer is not None and answer.is_success:
                found = answer.json()
                self.pulled += [event["data"]["event_id"] for event in found["items"]]
                after = f"&after={found['cursor']}"

    async def close(self) -> None:
        await self._client.aclose()


@contextlib.asynccontextmanager
async def background(*works) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
        for task in tasks:
            assert not task.done(), task.exception()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def edit_on(house: House, made: list[dict]) -> None:
    while True:
        made += await house.change({"op": "edit", "count": EDITED_AT_ONCE})
        with contextlib.suppress(httpx.HTTPError):
            await house.attempt(
                "POST", f"/v1/integrations/{house.integration_id}/polls", json={"kind": "delta"}
            )
        await asyncio.sleep(0.1)  # the pace of the edits


async def replace(house: House, name: str, successor: str, **variables: str) -> None:
    """Starts a successor, and ends the process once that serves."""
    old = house.processes[name]
    new = house.processes[successor] = old.like(successor, **variables)
    new.start()
    sign = {"worker": "worker registered", "scheduler": '"event": "scheduler'}.get(
        name.partition("-")[0]
    )
    if sign is not None:
        await until(lambda: sign in new.log(), seconds=30, what=f"{successor}\n{house.logs()}")
    await end(house, name)


async def end(house: House, name: str) -> None:
    """By itself, within its time. What serves HTTP says at last which signal ended it."""
    code = await asyncio.to_thread(house.processes[name].stop, DRAIN_SECONDS)
    assert code in (0, -signal.SIGTERM), f"{name}: {code}\n{house.logs()}"
    assert "Traceback" not in house.processes[name].log()


async def test_replacing_every_process_under_load_loses_and_repeats_nothing(
    build_house, subscriber: Subscriber
):
    house: House = await build_house(COURSES)
    house.processes["worker-2"] = house.processes["worker"].like("worker-2")
    house.processes["worker-2"].start()
    await initial_load(house, subscriber, COURSES)
    await received(house, subscriber, COURSES)
    await house.drained()

    balancer = Balancer(house)
    made: list[dict] = []
    async with background(edit_on(house, made), balancer.ask_on(), balancer.wait_on()):
        await until(lambda: len(made) > 20, seconds=30, what="changes")
        await replace(house, "worker", "worker-3")
        await replace(house, "scheduler", "scheduler-2")
        await replace(house, "worker-2", "worker-4")

        port = free_port()
        new = house.processes["api-2"] = house.processes["api"].like(
            "api-2", COURSEWIRE_PORT=str(port)
        )
        new.start()

        async def is_ready() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                answer = await house.api.get(f"http://127.0.0.1:{port}/readyz")
                return answer.status_code == 200
            return False

        await until(is_ready, seconds=30, what=f"another API\n{house.logs()}")
        balancer.add(port)
        await end(house, "api")
        balancer.remove(house.api_port)
        house.api.base_url = f"http://127.0.0.1:{port}"
        # Valkey, last: it writes its file to the end, and is waited for.
        known = len(subscriber.received)
        await end(house, "valkey")
        house.processes["valkey"].start()
        await until(
            lambda: len(subscriber.received) > known + 20, seconds=60, what=f"more\n{house.logs()}"
        )
    assert balancer.broken == []
    assert len(set(balancer.pulled)) == len(balancer.pulled) > COURSES + 20
    assert set(balancer.answers) <= {200, 503}  # while Valkey is away

    await house.poll("delta")
    await house.drained()
    held = states(subscriber)
    async with Redis.from_url(house.redis_url) as redis:
        assert await redis.ping()
    for course_id in {change["course_id"] for change in made}:
        answer = await house.sandbox.get(f"/control/integrations/{UPSTREAM_ID}/courses/{course_id}")
        assert held[course_id]["data"]["course"] == answer.json()
    assert subscriber.types() == {
        "course.created": COURSES,
        "course.updated": len(subscriber.received) - COURSES,
    }
    assert subscriber.duplicates == 0
    assert subscriber.conflicts == []
    subscriber.check_order()
    await balancer.close()
