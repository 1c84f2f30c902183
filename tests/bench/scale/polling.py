"""Many courses, and many integrations."""

from __future__ import annotations

import asyncio
import time
from typing import cast

from service.clock import now_ms
from service.domain.polling.integration import PollRecord
from service.storage.redis import keys
from tests.bench import growth, scheduling
from tests.bench.scale.installation import Installation

_CATALOGUES = 10  # integrations that the courses are divided among
_INTERVAL_SECONDS = 600
_LATEST_SECONDS = 10.0  # that a poll may be late


async def courses(one: Installation, count: int) -> None:
    """Ten integrations are polled by one worker for the first time, then with nothing changed, then
    with one course absent from each."""
    each = max(1, count // _CATALOGUES)
    upstream = await one.start(
        "", "tests.bench.upstream", "--generated", "--courses", str(max(3, each))
    )
    base_url = f"http://127.0.0.1:{await upstream.hear()}/v1"
    each = max(3, each)
    await one.start_workers()
    ids = [await growth.register(one.services, base_url, n) for n in range(_CATALOGUES)]
    for name, found in (
        ("first full poll", {"created": each}),
        ("full poll, nothing changed", {"unchanged": each}),
        ("full poll, one course absent from each", {"unchanged": each - 1, "deleted": 1}),
    ):
        if "deleted" in found:
            await upstream.ask({"absent": [each // 2]})
        async with one.step(name, each * _CATALOGUES):
            for polled in await _full_polls(one, ids):
                if polled.verdicts != found:
                    raise AssertionError(f"not the poll that was to be measured: {polled}")


async def _full_polls(one: Installation, ids: list[str]) -> list[PollRecord]:
    integrations = one.services.integrations
    asked = [await integrations.request_poll(each, "full", now_ms()) for each in ids]
    await one.dispatcher.dispatch("polls")
    return await asyncio.gather(
        *(
            growth.completed(one.services, each, poll.id, one.options.patience)
            for each, poll in zip(ids, asked, strict=True)
        )
    )


async def integrations(one: Installation, count: int) -> None:
    """Integrations of one course with an interval of ten minutes, whose due times are spread evenly
    over it once their first polls are over."""
    redis, seconds = one.services.redis, one.options.seconds
    upstream = await one.start("", "tests.bench.upstream")
    base_url = f"http://127.0.0.1:{await upstream.hear()}/v1"
    async with one.step("registered", count):
        registered = await scheduling.register(one.services, base_url, count, _INTERVAL_SECONDS)
    await one.start_workers()
    async with one.step("first polls", count):
        await scheduling.baselines_done(one.services, count, one.options.patience)
    await one.until(lambda: _none_claimed(one))
    ids, begun = list(registered), now_ms()
    for start in range(0, count, 1_000):
        spread = {
            each: begun + (start + place) * _INTERVAL_SECONDS * 1000 // count
            for place, each in enumerate(ids[start : start + 1_000])
        }
        await redis.zadd(keys.due("polls"), spread, xx=True)
    since = time.time()
    due = cast(
        "list[tuple[bytes, float]]",
        await redis.zrange(
            keys.due("polls"),
            since * 1000,
            (since + seconds) * 1000,
            byscore=True,
            withscores=True,
        ),
    )
    async with one.step(f"polled for {seconds:g} s", max(1, len(due))) as figures:
        await asyncio.sleep(seconds)
    await asyncio.sleep(_LATEST_SECONDS if due else 0)
    asked: dict[str, list[float]] = await upstream.ask({"since": since})
    lags = sorted(
        (min(times) - score / 1000) * 1000
        for member, score in due
        if (times := asked.get(registered[member.decode()]))
    )
    figures["never_polled"] = len(due) - len(lags)
    for name, share in (("lag_p50_ms", 0.5), ("lag_p99_ms", 0.99), ("lag_max_ms", 1.0)):
        figures[name] = scheduling.quantile(lags, share) or 0.0
    await one.maintain(count)


async def _none_claimed(one: Installation) -> bool:
    return not await one.services.redis.zcard(keys.claimed("polls"))
