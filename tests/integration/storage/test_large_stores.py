"""What must not grow with the length of a stream or with the number of outboxes."""

from __future__ import annotations

import pytest

from service.domain.delivery.delivery_merge import Place
from service.domain.delivery.subscription import Outbox, Rendering
from service.domain.events.identifiers import position_number
from service.storage.delivery.deliveries import Wanted
from service.storage.redis import keys
from service.storage.redis.scripts import run
from service.storage.redis.streams import read_stream_back
from service.storage.upkeep.retention import TrimLog


@pytest.fixture
def read_backwards(redis):
    """How many XREVRANGE the server has run since the last time; the one that finds nothing before
    its start reads the whole stream."""

    async def count() -> int:
        stats = await redis.info("commandstats")
        await redis.config_resetstat()
        return stats.get("cmdstat_xrevrange", {}).get("calls", 0)

    return count


async def test_a_stream_is_not_read_where_nothing_is_before_the_start(redis, read_backwards):
    for at in (5, 6, 7):
        await redis.xadd("stream", {"a": 1}, id=f"{at}-0")
    await read_backwards()
    assert await read_stream_back(redis, "stream", "5-0", 3) == []
    assert await read_stream_back(redis, "stream", "4-9", 3) == []
    assert await read_backwards() == 0
    found = await read_stream_back(redis, "stream", "7-0", 3)
    assert [entry_id for entry_id, _ in found] == [b"6-0", b"5-0"]
    assert len(await read_stream_back(redis, "stream", None, 3)) == 3
    assert await read_backwards() == 2


async def test_maintenance_does_not_read_a_log_of_which_nothing_has_expired(
    services, redis, read_backwards
):
    await redis.xadd(keys.EVENTS, {"t": "course.updated"}, id="5-0")
    await read_backwards()
    limits = {"events_max_bytes": 2**30, "attempts_before": 0, "dead_before": 0}
    assert (await services.retention.trim(events_before=5, **limits))["events"] == 0
    assert await read_backwards() == 0
    assert (await services.retention.trim(events_before=6, **limits))["events"] == 1


async def test_a_log_is_trimmed_in_steps(services, redis):
    async with redis.pipeline() as pipeline:
        for at in range(1, 1_001):
            pipeline.xadd(keys.EVENTS, {"t": "course.updated"}, id=f"{at}-0")
        await pipeline.execute()
    gone = []
    while not gone or gone[-1]:
        gone.append(await run(services.redis, TrimLog(last="957-0", most=300)))
    assert sum(gone) == 957
    assert max(gone) <= 300
    assert [entry_id for entry_id, _ in await redis.xrange(keys.EVENTS, count=1)] == [b"958-0"]
    assert await redis.get(keys.EVENTS_TRIMMED) == b"957-0"


async def test_a_page_of_deliveries_does_not_read_outboxes_that_begin_later(
    services, redis, read_backwards
):
    await redis.xadd(keys.outbox("sub_a"), {"k": "k", "r": "f"}, id="5-0")
    await read_backwards()
    place = Place(position_number("4-0"), "sub_z")
    assert await services.deliveries.page(["sub_a"], Wanted(), limit=5, after=place) == ([], None)
    assert await read_backwards() == 0


async def test_an_event_wakes_thousands_of_outboxes(subscribe, services, redis):
    one = await subscribe()
    others = [Outbox(f"sub_{n}", Rendering.FULL, n != 7) for n in range(4_500)]
    await redis.zadd(keys.claimed("outboxes"), {"sub_8": 9e15})
    await one.emit("c1", others=others)
    due = {name.decode() for name in await redis.zrange(keys.due("outboxes"), 0, -1)}
    assert due == {one.id, *(other.subscription_id for other in others)} - {"sub_7", "sub_8"}
