from __future__ import annotations

import asyncio

from service.storage.events.body_cache import BodyCache


async def test_the_oldest_go_where_there_are_too_many() -> None:
    cache: BodyCache[str] = BodyCache(most=2)
    for key in "abc":
        cache.put([(key, key.upper(), 1)])
    assert [cache.get(key) for key in "abc"] == [None, "B", "C"]


async def test_the_oldest_go_where_they_take_too_many_bytes() -> None:
    cache: BodyCache[str] = BodyCache(most_bytes=10)
    cache.put([("a", "A", 6)])
    cache.put([("b", "B", 4)])
    cache.put([("b", "B", 5)])
    assert [cache.get(key) for key in "ab"] == [None, "B"]
    cache.put([("c", "C", 11)])
    assert [cache.get(key) for key in "bc"] == ["B", None], "it is larger than all may be"


async def test_what_is_old_is_removed_although_nobody_asks() -> None:
    cache: BodyCache[str] = BodyCache(lifetime=0.02)
    cache.put([("a", "A", 1)])
    await asyncio.sleep(0.01)
    cache.put([("b", "B", 1)])
    async with asyncio.timeout(5):
        while len(cache):  # noqa: ASYNC110 - it is removed by a timer
            await asyncio.sleep(0.005)
    cache.put([("c", "C", 1)])
    assert cache.get("c") == "C"
    async with asyncio.timeout(5):
        while len(cache):  # noqa: ASYNC110 - it is removed by a timer
            await asyncio.sleep(0.005)


async def test_what_has_expired_is_not_found_before_it_is_removed() -> None:
    cache: BodyCache[str] = BodyCache(lifetime=0.0)
    cache.put([("a", "A", 1)])
    assert cache.get("a") is None
