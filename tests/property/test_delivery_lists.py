"""Pages of deliveries hold each delivery once, in order, whatever is asked for."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.delivery.delivery_merge import Merge, Place
from service.domain.events.event import EventFilter
from service.domain.events.identifiers import (
    BACKFILLED,
    first_number,
    position_number,
)
from service.storage.delivery import deliveries as module
from service.storage.delivery.attempts import Attempts
from service.storage.delivery.deliveries import Deliveries, Wanted
from service.storage.events.event_log import EventLog
from service.storage.events.lookup import OutboxEvents
from service.storage.redis import keys
from service.storage.security.encryption import Encryptor
from tests.fake_redis import FakeRedis
from tests.stored_deliveries import FIRST_MS, SHAPES, SUFFIX, TYPES, Known, store, type_of

SUBSCRIPTIONS = ("sub_a", "sub_b", "sub_c")
numbers = st.integers(0, 40)


# --- the merge -----------------------------------------------------------------------------------


@given(
    held=st.dictionaries(
        st.sampled_from("abcdefg"), st.lists(st.lists(numbers, max_size=12), min_size=1, max_size=3)
    ),
    span=st.tuples(numbers, numbers).map(sorted),
    newest_first=st.booleans(),
    sizes=st.lists(st.integers(1, 5), min_size=1),
    most=st.integers(1, 4),
)
def test_pages_are_all_places_in_order(held, span, newest_first, sizes, most) -> None:
    low, high = span
    expected = sorted(
        {
            (number, one)
            for one, sources in held.items()
            for source in sources
            for number in source
            if low <= number <= high
        },
        reverse=newest_first,
    )
    found: list[tuple[int, str]] = []
    after = None
    for number in range(1000):
        merge = Merge(held, (low, high), newest_first=newest_first, after=after)
        page: list[Place] = []
        while len(page) < sizes[number % len(sizes)]:
            while looks := merge.looks(3):
                for look in looks:
                    sources = [
                        [ahead(source, look.start, merge.end)[:most] for source in held[one]]
                        for one in look.subscription_ids
                    ]
                    merge.found(look, sources, most)
            place = merge.take()
            if place is None:
                break
            page.append(place)
        if not page:
            break
        found += [(one.number, one.subscription_id) for one in page]
        after = page[-1]
    assert found == expected


def ahead(source: list[int], start: int, end: int) -> list[int]:
    """What a source holds from `start` to `end`, in that direction."""
    low, high = sorted((start, end))
    return sorted((one for one in source if low <= one <= high), reverse=start > end)


# --- what is stored ------------------------------------------------------------------------------

positions = st.builds(
    lambda ms, counter: f"{FIRST_MS + ms}-{counter}",
    st.integers(0, 3),
    st.sampled_from([0, 1, 2, 9, 10, 31, 32, 200, BACKFILLED + 1]),
)
worlds = st.dictionaries(
    st.tuples(positions, st.sampled_from(SUBSCRIPTIONS)), st.sampled_from(sorted(SHAPES))
)


def several(choices: list[str]) -> st.SearchStrategy[frozenset[str] | None]:
    return st.none() | st.frozensets(st.sampled_from(choices), min_size=1)


@st.composite
def filters(draw: st.DrawFn) -> Wanted:
    moments = st.integers(FIRST_MS - 1, FIRST_MS + 4)
    since, until = sorted((draw(moments), draw(moments)))
    types = draw(several([*TYPES]))
    return Wanted(
        states=draw(several(["pending", "retrying", "delivered", "dead"])),
        outcomes=draw(several(["delivered", "status"])),
        status=draw(st.sampled_from([None, None, 204, 500])),
        first=first_number(since),
        last=first_number(until) - 1 if draw(st.booleans()) else first_number(until + 9),
        events=EventFilter(types=types),
    )


def is_wanted(one: Known, wanted: Wanted) -> bool:
    last = one.outcomes[-1] if one.outcomes else None
    status = {None: None, "delivered": 204, "status": 500}[last]
    return (
        wanted.first <= position_number(one.position) <= wanted.last
        and (wanted.states is None or one.state in wanted.states)
        and (wanted.outcomes is None or last in wanted.outcomes)
        and wanted.status in (None, status)
        and (wanted.events.types is None or one.event_type in wanted.events.types)
    )


async def listed(
    world: dict[tuple[str, str], str], wanted: Wanted, sizes: list[int], *, newest_first: bool
) -> tuple[list[Known], list[Known]]:
    """What the pages hold, and what they are to hold."""
    async with FakeRedis() as redis:
        encryptor = Encryptor((b"k" * 32,))
        log = EventLog(redis)
        deliveries = Deliveries(redis, Attempts(redis, encryptor), OutboxEvents(redis, log))
        known = []
        in_order = sorted(world.items(), key=lambda one: (position_number(one[0][0]), one[0][1]))
        for position in dict.fromkeys(position for (position, _), _ in in_order):
            if event_type := type_of(position):
                facts = {"t": event_type, "i": "int_a", "c": "c1", "x": SUFFIX, "s": 1, "p": 0}
                await redis.xadd(keys.EVENTS, {**facts, "m": "{}", "b": ""}, id=position)
        for place, shape in in_order:
            if one := await store(redis, *place, shape):
                known.append(one)
        found: list[Known] = []
        after, number = None, 0
        while number == 0 or after is not None:
            page, after = await deliveries.page(
                SUBSCRIPTIONS,
                wanted,
                limit=sizes[number % len(sizes)],
                newest_first=newest_first,
                after=after,
            )
            assert len(page) <= sizes[number % len(sizes)]
            number += 1
            found += [
                Known(
                    one.position,
                    one.subscription_id,
                    one.state,
                    one.event_type,
                    tuple(attempt.outcome for attempt in one.attempts),
                )
                for one in page
            ]
    expected = [one for one in known if is_wanted(one, wanted)]
    return found, expected[::-1] if newest_first else expected


@given(
    world=worlds,
    wanted=filters(),
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    newest_first=st.booleans(),
    examined=st.sampled_from([1, 3, 2_000]),
)
def test_pages_are_what_a_plain_list_holds(world, wanted, sizes, newest_first, examined) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_EXAMINED", examined)
        patch.setattr(module, "MIN_LOOK", 1)
        patch.setattr(module, "MAX_LOOK", 2)
        found, expected = asyncio.run(listed(world, wanted, sizes, newest_first=newest_first))
    assert found == expected
