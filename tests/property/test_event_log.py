"""The log gives each event at its position, however the positions lie."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from service.domain.events.identifiers import runs_of
from service.storage.events.event_log import EventLog
from service.storage.redis import keys
from tests.fake_redis import FakeRedis

positions = st.builds(lambda ms, counter: f"{ms}-{counter}", st.integers(1, 3), st.integers(0, 12))
FIELDS = {"t": "course.updated", "i": "int_a", "c": "c", "x": "a" * 12, "s": 1, "p": 0, "m": "{}"}


def order(position: str) -> tuple[int, ...]:
    return tuple(map(int, position.split("-")))


def in_order(some: set[str]) -> list[str]:
    return sorted(some, key=order)


@given(
    held=st.sets(positions),
    wanted=st.lists(positions, unique=True) | st.sets(positions).map(in_order),
)
def test_the_log_gives_the_events_that_it_has(held, wanted) -> None:
    async def read():
        async with FakeRedis() as redis:
            for position in in_order(held):
                await redis.xadd(keys.EVENTS, {**FIELDS, "b": position}, id=position)
            log = EventLog(redis)
            return [await log.get_many(wanted, bodies=bodies) for bodies in (True, False)]

    full, heads = asyncio.run(read())
    there = [position if position in held else None for position in wanted]
    assert [one and one.position for one in full] == there
    assert [one and one.course.decode() for one in full] == there
    assert [one and one.position for one in heads] == there


@given(st.lists(positions))
def test_runs_hold_the_positions_in_their_order(given) -> None:
    found = []
    for first, last in runs_of(given):
        milliseconds, start = first.split("-")
        end = last.removeprefix(f"{milliseconds}-")
        found += [f"{milliseconds}-{counter}" for counter in range(int(start), int(end) + 1)]
    assert found == given
