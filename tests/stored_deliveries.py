"""Deliveries as scripts leave them in Redis, for tests of what is read of them."""

from __future__ import annotations

import msgspec

from service.domain.events.identifiers import (
    BACKFILLED,
    event_id,
    position_number,
    sort_key,
)
from service.storage.delivery.attempts import Attempt
from service.storage.redis import keys
from tests.fake_redis import FakeRedis

SUFFIX = "abcdefghjkmn"
FIRST_MS = 1_795_424_001_000
TYPES = ("course.created", "course.updated")
# What a delivery may look like in Redis, and the state that follows.
SHAPES = {
    "pending": "pending",
    "retrying": "retrying",
    "dead": "dead",
    "delivered": "delivered",
    "delivered late": "delivered",
    "delivered twice": "delivered",
    "pending in a replay": "pending",
    "retrying in a replay": "retrying",
    "dead and replayed": "dead",
    "delivered and replayed": "delivered",
    "skipped": None,
}


class Known(msgspec.Struct, frozen=True):
    """What the list is to say of a delivery; there is no `event_type` if its event is gone."""

    position: str
    subscription_id: str
    state: str
    event_type: str | None
    outcomes: tuple[str, ...]


async def store(redis: FakeRedis, position: str, subscription: str, shape: str) -> Known | None:
    """Stores a delivery; returns what is known of it, if it is to be listed."""
    sorted_by = sort_key(position)
    failed = shape.startswith(("retrying", "dead", "skipped", "delivered late"))
    outcomes = ("status",) * failed + ("delivered",) * shape.startswith("delivered")
    outcomes += ("delivered",) * (shape == "delivered twice")
    for at, outcome in enumerate(outcomes):
        attempt = Attempt(
            event_id=event_id(position, SUFFIX),
            number=at + 1,
            at=FIRST_MS + at,
            outcome=outcome,
            status=204 if outcome == "delivered" else 500,
            duration_ms=1,
        )
        order = ("S" if outcome == "delivered" else "F") + sorted_by
        record = {"o": order, "d": msgspec.json.encode(attempt)}
        record_id = await redis.xadd(keys.attempts(subscription), record)
        await redis.zadd(keys.attempts_order(subscription), {order + record_id.decode(): 0})
    queue, place = keys.live_queue(subscription), position
    if shape in ("pending", "retrying"):
        await redis.xadd(queue.stream, {"k": position, "r": "f"}, id=position)
    if "replay" in shape:
        queue = keys.replayed_queue(subscription)
        entry = {"k": position, "r": "f", "p": position, "i": "r"}
        place = (await redis.xadd(queue.stream, entry)).decode()
        await redis.zadd(keys.replayed_order(subscription), {sorted_by + place: 0})
    if shape.startswith("retrying"):
        await redis.zadd(queue.retries, {position: 0})
        await redis.hset(queue.failing, position, f"{place} 1 1 f {position} r")
        await redis.zadd(queue.retrying, {sorted_by: 0})
    if shape.startswith("dead"):
        await redis.zadd(keys.outbox_dead(subscription), {sorted_by: 0})
        await redis.hset(keys.outbox_dead_facts(subscription), sorted_by, f"{FIRST_MS} 1 f k why")
    event_type = type_of(position)
    state = SHAPES[shape]
    if state is None or (event_type is None and not outcomes):
        return None
    return Known(position, subscription, state, event_type, outcomes)


def type_of(position: str) -> str | None:
    """The type of the event at a position, if it is still kept."""
    number = position_number(position)
    gone = int(position.partition("-")[2]) >= BACKFILLED or number % 5 == 0
    return None if gone else TYPES[number % 2]
