from __future__ import annotations

import asyncio

import pytest

from service.storage.redis.recent_reads import RecentReads


class Source:
    """Gives what stands under a name, and notes what was read."""

    def __init__(self) -> None:
        self.values: dict[str, int | None] = {"a": 1, "b": 2}
        self.asked: list[str] = []
        self.now = 100.0
        self.begun: asyncio.Queue[str] = asyncio.Queue()
        self.answers = asyncio.Event()
        self.answers.set()
        self.recent = RecentReads(self.read, clock=lambda: self.now)

    async def read(self, name: str) -> int | None:
        self.asked.append(name)
        self.begun.put_nowait(name)
        value = self.values[name]
        await self.answers.wait()
        return value


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


async def test_callers_at_the_same_time_share_one_read_and_one_failure() -> None:
    source = Source()
    source.answers.clear()
    callers = [asyncio.create_task(source.recent.get(name)) for name in ("a", "a", "c", "c", "a")]
    assert {await source.begun.get(), await source.begun.get()} == {"a", "c"}
    callers[0].cancel()  # that began the read
    source.answers.set()
    ended = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(one) for one in ended[2:4]] == [KeyError, KeyError]
    assert (ended[1], ended[4]) == (1, 1)
    assert isinstance(ended[0], asyncio.CancelledError)
    assert source.asked == ["a", "c"]


@pytest.mark.parametrize("seconds", [0.0, 1.0])
async def test_a_read_that_began_before_a_change_is_not_joined_after_it(seconds: float) -> None:
    """After a change that this process made, and a second after one that another process made."""
    source = Source()
    source.answers.clear()
    before = asyncio.create_task(source.recent.get("a"))
    await source.begun.get()
    source.values["a"] = 5
    source.now += seconds
    if not seconds:
        source.recent.forget("a")
    after = asyncio.create_task(source.recent.get("a"))
    await source.begun.get()
    source.answers.set()
    assert (await before, await after) == (1, 5)
    assert await source.recent.get("a") == 5
    assert source.asked == ["a", "a"]
