"""Hosts die, lose their way to Valkey and find it again: what is promised holds all the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from service.storage.redis import keys
from tests.e2e.conftest import UPSTREAM_ID, House, Subscriber, Victim, until
from tests.e2e.hosts import TwoHosts, Watched
from tests.e2e.test_main_job import check_changes, ids, initial_load, received, states

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
async def two_hosts(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[TwoHosts]:
    house = TwoHosts(tmp_path, request.param)
    yield house
    await house.close()


@pytest.fixture
async def watched(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Watched]:
    house = Watched(tmp_path, request.param)
    yield house
    await house.close()


async def slow_pages(house: House, seconds: float) -> None:
    """Makes polls last, so that what happens happens in the middle of them; 0 ends that."""
    await house.sandbox.delete("/control/faults")
    if seconds:
        await house.sandbox.post("/control/faults", json={"kind": "delay", "seconds": seconds})


async def polled(house: House) -> None:
    """Waits until some worker holds the integration's lease."""
    async with Redis.from_url(house.redis_url) as redis:
        lease = keys.lease("polls", house.integration_id)
        await until(lambda: redis.exists(lease), seconds=30, what="a poll under way")


CUT_SECONDS = {1_000: 0, 6_000: 60}  # at least; and as long as the other host takes


@pytest.mark.nightly  # a minute at least; chaos kills and cuts off for every change
@pytest.mark.parametrize(
    "two_hosts",
    [1_000, 6_000],
    indirect=True,
    ids=["short", "long"],
)
async def test_one_host_killed_and_one_cut_off_lose_and_invent_nothing(
    two_hosts, subscriber, request
):
    house: TwoHosts = two_hosts
    a, b = house.hosts["a"], house.hosts["b"]
    courses = request.node.callspec.params["two_hosts"]
    await house.start("valkey", "sandbox", "api")
    for path in house.paths.values():
        await path.open()

    # The first host dies while it polls and delivers; the second goes on with both.
    a.start()
    await initial_load(house, subscriber, courses)
    await received(house, subscriber, courses // 4)
    a.kill()
    b.start()
    await received(house, subscriber, courses)
    await house.drained()
    assert subscriber.types() == {"course.created": courses}

    # The second is cut off in the middle of a poll, and the first, back again, takes that over.
    async def cut_b_off() -> None:
        await polled(house)
        house.paths["b"].cut()
        await slow_pages(house, 0)
        a.start()

    await slow_pages(house, 0.2)
    begun = time.monotonic()
    await check_changes(house, subscriber, scale=5, victim=cut_b_off)
    lasted = CUT_SECONDS[courses]
    await until(lambda: time.monotonic() - begun > lasted, seconds=lasted + 1, what="the time")
    late = house.paths["b"].late_bytes
    house.paths["b"].mend()
    assert late > 0  # it had something to say, and says it now

    # While it does, Valkey dies under both of them.
    await check_full(house, subscriber, victim="valkey")

    assert await asyncio.to_thread(a.stop) == [0, 0]
    assert await asyncio.to_thread(b.stop) == [0, 0]
    assert subscriber.conflicts == []
    subscriber.check_order()


async def check_full(house: House, subscriber: Subscriber, *, victim: Victim) -> None:
    """Changes of all kinds give exactly their events, though `victim` is killed during the full
    poll that finds them."""
    start = len(subscriber.received)
    changes = await house.change(
        *({"op": op, "count": 8} for op in ("edit", "delete", "vanish", "provider", "skill"))
    )
    await house.poll("full", victim=victim)
    await house.drained()
    deleted = ids(changes, "delete", "vanish")
    assert sorted(
        (event["data"]["course_id"], event["type"]) for event in subscriber.received[start:]
    ) == sorted(
        (one["course_id"], f"course.{'deleted' if one['course_id'] in deleted else 'updated'}")
        for one in changes
    )


@pytest.mark.nightly
@pytest.mark.parametrize("watched", [1_000], indirect=True)
async def test_a_failover_by_sentinel_under_load_loses_nothing_for_good(watched, subscriber):
    """A replica may lack the last second: what it lacks is found again, and told once more."""
    house: Watched = watched
    await house.start()
    await initial_load(house, subscriber, 1_000)
    await received(house, subscriber, 1_000)
    await house.drained()

    changes = await house.change(
        {"op": "edit", "count": 200}, {"op": "delete", "count": 8}, {"op": "vanish", "count": 8}
    )
    known = len(subscriber.received)

    async def fail_over() -> None:
        await until(
            lambda: len(subscriber.received) > known + 20, seconds=30, what="changes under way"
        )
        house.processes["valkey"].kill()
        await until(
            lambda: _leads(house, "replica"), seconds=60, what=f"a failover\n{house.logs()}"
        )

    await house.poll("full", victim=fail_over, seconds=120)
    # The one that was the primary comes back as if nothing had happened, and is put right.
    house.processes["valkey"].start()
    await until(
        lambda: _roles_are(house, valkey="slave", replica="master"),
        seconds=60,
        what=f"a demotion\n{house.logs()}",
    )
    await house.poll("full", seconds=120)
    await house.drained()

    held = states(subscriber)
    for change in changes:
        event = held[change["course_id"]]
        if change["op"] == "edit":
            answer = await house.sandbox.get(
                f"/control/integrations/{UPSTREAM_ID}/courses/{change['course_id']}"
            )
            assert event["data"]["course"] == answer.json()
        else:
            assert event["type"] == "course.deleted"
    assert {event["data"]["course_id"] for event in subscriber.received[known:]} == {
        change["course_id"] for change in changes
    }
    rising(subscriber)
    assert subscriber.conflicts == []
    for host in house.hosts.values():
        assert await asyncio.to_thread(host.stop) == [0, 0]


def rising(subscriber: Subscriber) -> None:
    """Sequences rise per course, whatever a server has forgotten."""
    last: dict[str, int] = {}
    for event in subscriber.received:
        data = event["data"]
        if event["type"].startswith("course."):
            assert data["sequence"] > last.get(data["course_id"], 0)
            last[data["course_id"]] = data["sequence"]


async def _leads(house: Watched, name: str) -> bool:
    return await house.primary_port() == house.ports[name]


async def _roles_are(house: Watched, **roles: str) -> bool:
    return await house.roles() == roles
