"""What a page of deliveries costs: few subscriptions with many attempts, a long outbox, and many
subscriptions."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from redis.asyncio import Redis

from service.clock import now_ms
from service.domain.delivery.subscription import Subscription
from service.domain.events.event import CourseFacts
from service.domain.events.identifiers import event_id, sort_key
from service.storage.delivery.attempts import Attempt
from service.storage.redis import keys

FEW = 10  # subscriptions, each with attempts at a tenth of all events
_AT_ONCE = 1_000
_SUFFIX = "abcdefghjkmn"
_BODY = msgspec.json.encode({"id": "c", "title": "A course", "text": "x" * 200})

Case = tuple[str, str]  # what it is, and the query


def _positions(first_ms: int, events: int) -> list[str]:
    return [f"{first_ms + number // 20}-{number % 20}" for number in range(events)]


def _event(number: int) -> dict[str, Any]:
    course = f"course-{number % 5_000}"
    facts = CourseFacts(
        integration_id="int_bench",
        upstream_id="workday:bench",
        external_id=None,
        labels={},
        course_id=course,
        remote_id=str(number),
        origin_id=None,
        changed=("title",),
        reason=None,
        evidence=None,
        initial=False,
        detected_by="delta",
    )
    return {
        "t": "course.updated",
        "i": "int_bench",
        "c": course,
        "x": _SUFFIX,
        "s": number + 1,
        "p": 0,
        "m": msgspec.json.encode(facts),
        "b": _BODY,
    }


def _attempt(position: str, order: str, pipeline: Any, subscription_id: str, place: int) -> None:
    delivered = order == "S"
    attempt = Attempt(
        event_id=event_id(position, _SUFFIX),
        number=1,
        at=now_ms(),
        outcome="delivered" if delivered else "status",
        status=204 if delivered else 500,
        duration_ms=48,
        connect_ms=12,
        first_byte_ms=47,
    )
    ordered, record = f"{order}{sort_key(position)}", f"{place + 1}-0"
    content = {"o": ordered, "d": msgspec.json.encode(attempt)}
    pipeline.xadd(keys.attempts(subscription_id), content, id=record)
    pipeline.zadd(keys.attempts_order(subscription_id), {f"{ordered}{record}": 0})


def _retrying(position: str, pipeline: Any, subscription_id: str, place: int) -> None:
    queue = keys.live_queue(subscription_id)
    pipeline.xadd(queue.stream, {"k": position, "r": "f"}, id=position)
    pipeline.hset(queue.failing, position, f"{position} 1 1 f")
    pipeline.zadd(queue.retries, {position: now_ms() + 60_000})
    pipeline.zadd(queue.retrying, {sort_key(position): 0})
    _attempt(position, "F", pipeline, subscription_id, place)


def _parts(count: int) -> Iterator[range]:
    return (range(start, min(start + _AT_ONCE, count)) for start in range(0, count, _AT_ONCE))


async def _subscriptions(redis: Redis, names: Sequence[str]) -> None:
    for part in _parts(len(names)):
        async with redis.pipeline(transaction=False) as pipeline:
            for number in part:
                one = Subscription(
                    id=names[number],
                    url="https://example.com/webhooks",
                    created_at=number + 1,
                    updated_at=1,
                    paused=True,
                )
                pipeline.hset(keys.subscription(one.id), "record", msgspec.json.encode(one))
                pipeline.zadd(keys.SUBSCRIPTIONS, {one.id: one.created_at})
            await pipeline.execute()


async def fill_few(redis: Redis, events: int) -> list[Case]:
    """Ten subscriptions with many attempts, and one for which all events are pending."""
    attempts = events // 10
    names = [f"sub_few{number}" for number in range(FEW)]
    await _subscriptions(redis, [*names, "sub_long"])
    positions = _positions(now_ms() - 3_600_000, events)
    for part in _parts(events):
        async with redis.pipeline(transaction=False) as pipeline:
            for number in part:
                pipeline.xadd(keys.EVENTS, _event(number), id=positions[number])
                pipeline.xadd(keys.outbox("sub_long"), {"k": "k", "r": "f"}, id=positions[number])
            await pipeline.execute()
    recent = positions[-attempts:]
    for name in names:
        for part in _parts(attempts):
            async with redis.pipeline(transaction=False) as pipeline:
                for place in part:
                    if place % 100 == 50:
                        _retrying(recent[place], pipeline, name, place)
                    else:
                        _attempt(recent[place], "S", pipeline, name, place)
                await pipeline.execute()
    one, event = names[0], event_id(recent[50], _SUFFIX)
    return [
        ("of one of 10", f"subscription_id={one}"),
        ("of one of 10, the oldest", f"subscription_id={one}&order=asc"),
        ("of one of 10, one event", f"subscription_id={one}&event_id={event}"),
        ("of 11", "limit=50"),
        ("of 11, a page of 500", "limit=500"),
        ("of 11, who received an event", f"event_id={event}"),
        ("of 11, who is failing", "state=retrying"),
        ("of 11, one course: a part is looked through", "course_id=course-7"),
        (f"of {events:,} pending", "subscription_id=sub_long&state=pending"),
        (f"of {events:,} pending, a page of 500", "subscription_id=sub_long&limit=500"),
    ]


async def fill_many(redis: Redis, events: int) -> list[Case]:
    """Many subscriptions more that all received the last event, or fail to."""
    many = events // 10
    names = [f"sub_many{number:05}" for number in range(many)]
    await _subscriptions(redis, names)
    entries = await redis.xrevrange(keys.EVENTS, count=20)
    *older, newest = [entry_id.decode() for entry_id, _ in reversed(entries)]
    for part in _parts(many):
        async with redis.pipeline(transaction=False) as pipeline:
            for number in part:
                _attempt(older[number % len(older)], "S", pipeline, names[number], 1)
                if number % 100:
                    _attempt(newest, "S", pipeline, names[number], 2)
                else:
                    _retrying(newest, pipeline, names[number], 2)
            await pipeline.execute()
    event, of = event_id(newest, _SUFFIX), f"of {many + FEW + 1:,}"
    return [
        (of, "limit=50"),
        (f"{of}, a page of 500", "limit=500"),
        (f"{of}, who received an event", f"event_id={event}"),
        (f"{of}, who is failing", "state=retrying"),
        (f"{of}, one course: a part is looked through", "course_id=course-7"),
    ]


async def measure(port: int, token: str, cases: Sequence[Case]) -> Mapping[str, Sequence[float]]:
    """The median and the longest time of each request, in ms."""
    found = {}
    for name, query in cases:
        times = [await time_of(port, token, f"/v1/deliveries?{query}") for _ in range(11)]
        found[name] = (round(statistics.median(times), 1), round(max(times), 1))
    return found


async def time_of(port: int, token: str, target: str) -> float:
    """How many ms the answer to a request takes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = (
        f"GET {target} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n"
        f"Authorization: Bearer {token}\r\n\r\n"
    )
    started = time.perf_counter()
    writer.write(request.encode())
    answer = await reader.read()
    seconds = time.perf_counter() - started
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200"), answer[:1000]
    return seconds * 1000
