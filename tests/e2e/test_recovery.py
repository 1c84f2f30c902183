"""Work goes on soon after a worker, or a whole host, is killed or frozen."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import click
import pytest
from aiohttp import web
from redis.asyncio import Redis

from service.storage.redis import keys
from service.storage.scheduling.leases import LEASE_MS
from tests.conftest import peer
from tests.e2e.conftest import House, Subscriber, until
from tests.e2e.hosts import TwoHosts
from tests.e2e.test_main_job import received
from workers.delivery.drain import UNRECORDED

# Whole processes, and leases that run out.
# Half of these are nightly, so that `make test-slow` stays short; chaos kills for every change.
SUBSCRIBERS_AND_COURSES = [
    pytest.param(1, 2_500, id="1"),
    pytest.param(20, 125, id="20", marks=pytest.mark.nightly),
]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

IN_FLIGHT = 8  # attempts at once, to a subscription
LEASE_SECONDS = LEASE_MS / 1000
ANSWER_SECONDS = 0.02  # that a receiver takes, so that attempts are in flight when a worker dies
DYING_SECONDS = 0.5  # after a kill in which receipts may be of the worker that was killed


class TimedSubscriber(Subscriber):
    """Notes when each event first came."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    async def handle(self, request: web.Request) -> web.Response:
        known = len(self.received)
        answer = await super().handle(request)
        self.times += [time.monotonic()] * (len(self.received) - known)
        await asyncio.sleep(ANSWER_SECONDS)  # the receiver's pace
        return answer

    def standstill(self, killed: float) -> float:
        """Seconds from a kill to the next first receipt, 0 if all had been received."""
        return next((at for at in self.times if at > killed + DYING_SECONDS), killed) - killed


@pytest.fixture
async def subscribers(request: pytest.FixtureRequest) -> AsyncIterator[list[TimedSubscriber]]:
    made = [TimedSubscriber() for _ in range(request.param)]
    async with peer(*(web.post(f"/{at}", one.handle) for at, one in enumerate(made))) as url:
        for at, one in enumerate(made):
            one.url = f"{url}/{at}"
        yield made


class UpHouse(House):
    """`coursewire up`, on a Valkey that the test can read."""

    def __init__(self, directory: Path, courses: int) -> None:
        super().__init__(directory, courses)
        up = self.processes["api"].like("up")
        up.argv[-1] = "up"
        for name in ("api", "worker", "scheduler"):
            del self.processes[name]
        self.processes["up"] = up

    def worker(self) -> int | None:
        """The process id of the worker."""
        listed = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid=,args="], check=True, capture_output=True, text=True
        ).stdout
        parent = str(self.processes["up"].pid)
        found = [line.split(maxsplit=2) for line in listed.splitlines()]
        return next(
            (int(pid) for pid, by, args in found if by == parent and "workers.worker" in args), None
        )

    def kill_worker(self) -> float:
        """kill -9; returns when."""
        pid = self.worker()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        return time.monotonic()

    async def close(self) -> None:
        if self.processes["up"].running:
            self.processes["up"].stop()
        await super().close()


class InstanceHosts(TwoHosts):
    """Two hosts whose leases show whose they are."""

    def __init__(self, directory: Path, courses: int) -> None:
        super().__init__(directory, courses)
        for name in "ab":
            template = self.processes[f"worker-{name}"]
            self.processes[f"worker-{name}"] = template.like(
                template.name, COURSEWIRE_INSTANCE=f"host-{name}"
            )


Build = Callable[[type[Any], int], Any]


@pytest.fixture
async def build(tmp_path: Path) -> AsyncIterator[Build]:
    houses: list[House] = []

    def make(kind: type[House], courses: int) -> House:
        houses.append(kind(tmp_path, courses))
        return houses[-1]

    yield make
    for house in houses:
        await house.close()


async def two_pending_for_each_course(
    house: House, subscribers: Iterable[TimedSubscriber], courses: int
) -> list[str]:
    """Subscribes; returns the subscriptions, each paused and with two events of each course."""
    made = []
    for one in subscribers:
        await house.subscribe(one, paused=True, max_concurrency=IN_FLIGHT, timeout_seconds=30)
        made.append(house.subscription_id)
    await house.register(
        baseline="emit",
        delta_interval_seconds=3600,
        full_interval_seconds=86_400,
        guards={"changed_share": 1},
    )

    async def pending(count: int) -> bool:
        found = [await house.call("GET", f"/v1/subscriptions/{one}") for one in made]
        return all(one["pending"] == count for one in found)

    await until(lambda: pending(courses), seconds=90, what=f"created\n{house.logs()}")
    await house.change({"op": "edit", "all": True})
    await house.poll("delta")
    await until(lambda: pending(2 * courses), seconds=60, what=f"updated\n{house.logs()}")
    return made


async def resume(house: House, subscriptions: Iterable[str]) -> None:
    for one in subscriptions:
        await house.call("PATCH", f"/v1/subscriptions/{one}", json={"paused": False})


async def all_received(
    house: House, subscribers: Iterable[TimedSubscriber], courses: int, *, times: int = 1
) -> None:
    """Waits for both events of each course, of which only what was in flight came twice."""
    for one in subscribers:
        await received(house, one, 2 * courses)
        assert one.types() == {"course.created": courses, "course.updated": courses}
        assert one.duplicates <= UNRECORDED * IN_FLIGHT * times
        assert one.conflicts == []
        one.check_order()


async def lease_of(house: House, kind: str, owned_id: str) -> bytes | None:
    async with Redis.from_url(house.redis_url) as redis:
        found: bytes | None = await redis.get(keys.lease(kind, owned_id))
    return found


@pytest.mark.parametrize(
    ("subscribers", "courses"), SUBSCRIBERS_AND_COURSES, indirect=["subscribers"]
)
async def test_after_a_kill_of_the_only_worker_of_up_deliveries_go_on_when_it_is_restarted(
    build, subscribers: list[TimedSubscriber], courses: int
):
    house: UpHouse = build(UpHouse, courses)
    await house.start()
    made = await two_pending_for_each_course(house, subscribers, courses)
    await resume(house, made)
    first = subscribers[-1]
    await until(lambda: len(first.received) > courses / 4, seconds=30, what="some deliveries")
    killed = house.kill_worker()
    await all_received(house, subscribers, courses)
    stood = max(one.standstill(killed) for one in subscribers)
    twice = [one.duplicates for one in subscribers]
    click.echo(f"deliveries went on after {stood:.1f} s; sent twice, by subscription: {twice}")
    assert "work of a killed process reclaimed" in house.processes["up"].log()
    assert stood < 3 * LEASE_SECONDS / 2


@pytest.mark.nightly
async def test_after_a_kill_of_the_only_worker_of_up_polls_go_on_when_it_is_restarted(build):
    house: UpHouse = build(UpHouse, 2_000)
    await house.start()
    await house.register(delta_interval_seconds=3600, full_interval_seconds=86_400)
    await until(lambda: baselined(house), seconds=60, what=f"a baseline\n{house.logs()}")
    await house.sandbox.post("/control/faults", json={"kind": "delay", "seconds": 0.5})

    async def kill() -> None:
        before = await until(polling, seconds=30, what="a poll under way")
        killed = house.kill_worker()

        async def resumed() -> bool:
            return await polling() not in (None, before)

        await until(resumed, seconds=3 * LEASE_SECONDS, what=f"a poll again\n{house.logs()}")
        click.echo(f"the poll went on after {time.monotonic() - killed:.1f} s")
        await house.sandbox.delete("/control/faults")

    async def polling() -> bytes | None:
        return await lease_of(house, "polls", house.integration_id)

    poll = await house.poll("full", victim=kill)
    assert poll["state"] == "completed"
    assert "work of a killed process reclaimed" in house.processes["up"].log()


async def baselined(house: House) -> bool:
    found = await house.call("GET", f"/v1/integrations/{house.integration_id}")
    return found["state"] == "active"


@pytest.mark.parametrize(
    ("subscribers", "courses"), SUBSCRIBERS_AND_COURSES, indirect=["subscribers"]
)
async def test_when_a_host_is_lost_another_takes_over_when_its_leases_have_run_out(
    build, subscribers: list[TimedSubscriber], courses: int
):
    house: InstanceHosts = build(InstanceHosts, courses)
    await both_hosts_at_work(house, subscribers, courses)
    last = house.subscription_id
    lost = await holder(house, last)
    lost.kill()
    killed = time.monotonic()
    await all_received(house, subscribers, courses)
    stood = max(one.standstill(killed) for one in subscribers)
    twice = [one.duplicates for one in subscribers]
    click.echo(f"deliveries went on after {stood:.1f} s; sent twice, by subscription: {twice}")
    assert stood < 3 * LEASE_SECONDS


@pytest.mark.parametrize("subscribers", [1], indirect=True)
async def test_a_worker_frozen_past_its_leases_writes_nothing_when_it_wakes(
    build, subscribers: list[TimedSubscriber]
):
    courses = 2_500
    house: InstanceHosts = build(InstanceHosts, courses)
    await both_hosts_at_work(house, subscribers, courses)
    frozen, _ = (await holder(house, house.subscription_id)).processes
    taken = await lease_of(house, "outboxes", house.subscription_id)
    frozen.send(signal.SIGSTOP)

    async def passed_on() -> bool:
        return await lease_of(house, "outboxes", house.subscription_id) not in (None, taken)

    await until(passed_on, seconds=3 * LEASE_SECONDS, what=f"another sender\n{house.logs()}")
    frozen.send(signal.SIGCONT)
    await until(
        lambda: "lease lost, outbox released" in frozen.log(),
        seconds=30,
        what=f"a fence\n{house.logs()}",
    )
    await all_received(house, subscribers, courses, times=2)  # in flight once, and on waking
    await house.drained()
    metrics = (await house.api.get("/metrics")).text
    assert f'coursewire_deliveries_total{{state="delivered"}} {2 * courses}.0\n' in metrics


async def both_hosts_at_work(
    house: InstanceHosts, subscribers: list[TimedSubscriber], courses: int
) -> None:
    await house.start("valkey", "sandbox", "api")
    for path in house.paths.values():
        await path.open()
    for host in house.hosts.values():
        host.start()
    made = await two_pending_for_each_course(house, subscribers, courses)
    await resume(house, made)
    first = subscribers[-1]
    await until(lambda: len(first.received) > courses / 4, seconds=30, what="some deliveries")


async def holder(house: InstanceHosts, subscription_id: str) -> Any:
    """The host that sends to a subscription."""

    def of() -> Any:
        return lease_of(house, "outboxes", subscription_id)

    token = await until(of, seconds=30, what="a sender at work")
    return house.hosts[token.decode().partition(" ")[0].removeprefix("host-")]
