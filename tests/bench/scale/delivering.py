"""Many subscriptions, and many deliveries."""

from __future__ import annotations

import asyncio
import time

from service.storage.redis import keys
from service.storage.registry.subscriptions import new_secret
from tests.bench.scale.installation import Installation
from tests.bench.source import INTEGRATION, PAGE, subscribe

_DRAINED = 10  # subscriptions that the deliveries are divided among
_COURSES = 5_000  # that the events are of, in turn
_LOOK_SECONDS = 0.2


async def subscriptions(one: Installation, count: int) -> None:
    """Subscriptions that all match one event."""
    services = one.services
    await one.source.start()
    secret = new_secret()
    async with one.step("subscribed", count):
        ids = [await subscribe(services, "https://203.0.113.1/hooks", secret) for _ in range(count)]
    async with one.step("snapshot read", count):
        matcher = await services.matchers.current(fresh=True)
    async with one.step("one event matched", count):
        matched = matcher.outboxes(
            event_type="course.updated", integration_id=INTEGRATION, labels={}, changed=()
        )
    if {found.subscription_id for found in matched} != {*ids}:
        raise AssertionError(f"{len(matched)} of {count} subscriptions match")
    async with one.step("one event in all outboxes", count):
        await one.source.commit(ids, ["course-1"], dispatch=False)
    if int(await services.redis.hget(keys.TOTALS, "pending")) != count:
        raise AssertionError("an outbox is without the event")
    async with one.step("a second event", count):
        await one.source.commit(ids, ["course-2"], dispatch=False)
    await one.maintain(count)


async def deliveries(one: Installation, count: int) -> None:
    """Ten outboxes that were filled while delivery was paused are sent by one worker."""
    services = one.services
    await one.source.start()
    receivers = await one.start("", "tests.bench.subscribers", "--hosts", str(_DRAINED), "--forget")
    secret = new_secret()
    urls = [f"http://{host}/hooks" for host in await receivers.hear()]
    ids = [await subscribe(services, url, secret) for url in urls]
    await services.control.pause("delivery")
    events = max(1, count // _DRAINED)
    async with one.step("queued", events * _DRAINED):
        for start in range(0, events, PAGE):
            numbers = range(start, min(start + PAGE, events))
            changed = [f"course-{number % _COURSES}" for number in numbers]
            await one.source.commit(ids, changed, dispatch=False)
    await one.maintain(events * _DRAINED)
    await one.start_workers()
    async with one.step("drained", events * _DRAINED) as figures:
        await services.control.resume("delivery")
        await one.source.dispatch()
        left, begun = [], time.monotonic()
        while True:
            left.append((time.monotonic(), await _pending(one)))
            if not left[-1][1]:
                break
            if time.monotonic() - begun > one.options.patience:
                raise AssertionError(f"{left[-1][1]} deliveries are left (--patience)")
            await asyncio.sleep(_LOOK_SECONDS)
        figures["first_tenth_per_second"] = _rate(left, events * _DRAINED, 1.0, 0.9)
        figures["last_tenth_per_second"] = _rate(left, events * _DRAINED, 0.1, 0.0)


async def _pending(one: Installation) -> int:
    return int(await one.services.redis.hget(keys.TOTALS, "pending") or 0)


def _rate(left: list[tuple[float, int]], count: int, most: float, least: float) -> float:
    """Deliveries a second between two shares that are left."""
    began, before = next(look for look in left if look[1] <= most * count)
    ended, after = next(look for look in left if look[1] <= least * count)
    return round((before - after) / max(ended - began, _LOOK_SECONDS))
