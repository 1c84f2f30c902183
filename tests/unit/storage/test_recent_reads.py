from __future__ import annotations

import pytest

from service.storage.redis.recent_reads import RecentReads


class Source:
    """Gives what stands under a name, and notes what was read."""

    def __init__(self) -> None:
        self.values: dict[str, int | None] = {"a": 1, "b": 2}
        self.asked: list[str] = []
        self.now = 100.0
        self.recent = RecentReads(self.read, clock=lambda: self.now)

    async def read(self, name: str) -> int | None:
        self.asked.append(name)
        return self.values[name]


async def test_a_value_is_read_once_a_second() -> None:
    source = Source()
    assert [await source.recent.get("a") for _ in range(3)] == [1, 1, 1]
    source.values["a"] = 5
    source.now += 0.99
    assert await source.recent.get("a") == 1
    source.now += 0.01
    assert await source.recent.get("a") == 5
    assert source.asked == ["a", "a"]


async def test_what_does_not_exist_is_read_each_time() -> None:
    source = Source()
    assert await source.recent.get("a") == 1
    source.values["a"] = None
    source.now += 1
    assert [await source.recent.get("a"), await source.recent.get("a")] == [None, None]
    source.values["a"] = 7
    assert await source.recent.get("a") == 7


async def test_a_forgotten_value_is_read_again_and_others_are_not() -> None:
    source = Source()
    assert (await source.recent.get("a"), await source.recent.get("b")) == (1, 2)
    source.recent.forget("a")
    source.recent.forget("never asked for")
    assert (await source.recent.get("a"), await source.recent.get("b")) == (1, 2)
    assert source.asked == ["a", "b", "a"]


async def test_a_failure_is_not_kept() -> None:
    source = Source()
    with pytest.raises(KeyError):
        await source.recent.get("c")
    source.values["c"] = 3
    assert await source.recent.get("c") == 3


async def test_the_values_that_are_kept_are_bounded() -> None:
    source = Source()
    names = [str(number) for number in range(1_001)]
    source.values = dict.fromkeys(names, 1)
    for name in names:
        await source.recent.get(name)
    source.asked.clear()
    await source.recent.get(names[-1])
    await source.recent.get(names[0])
    assert source.asked == [names[0]]
