"""Lists deliveries, one event on one outbox each, with their attempts, at a bounded cost."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from service.clock import now_ms
from service.domain.delivery.delivery_merge import Look, Merge, Place
from service.domain.delivery.outcome import OutcomeClass
from service.domain.delivery.subscription import DeliveryState
from service.domain.events.event import EventFilter, StoredEvent, is_shown
from service.domain.events.identifiers import (
    POSITIONS,
    position_number,
    position_of,
    sort_key,
    sort_key_number,
)
from service.storage.delivery.attempts import Attempt, Attempts
from service.storage.delivery.dead_letters import DeadLetter
from service.storage.events.lookup import OutboxEvents
from service.storage.redis import keys
from service.storage.redis.keys import Key, QueueKeys, RecordKeys
from service.storage.redis.scripts import Script, run

if TYPE_CHECKING:
    from redis.asyncio import Redis

MAX_EXAMINED = 2_000  # deliveries that a filtered page reads, approximately
_EXAMINED_AT_ONCE = 200  # deliveries read in one script
_FOUND_AT_ONCE = 1_000  # subscriptions read in one script
MIN_LOOK = 2  # positions read of a subscription at once ...
MAX_LOOK = 100  # ... and at most
_ANY = "*"  # in place of a subscription's id


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """The filter of deliveries; None means any. `outcome` and `status` are those of the last
    recorded attempt; `first` and `last` are the numbers of positions. `events` filters by the
    event, if it is retained; its grant decides whether the event is shown."""

    states: Collection[DeliveryState] | None = None
    event_id: str | None = None
    outcomes: Collection[str] | None = None
    status: int | None = None
    events: EventFilter = EventFilter()
    first: int = 0
    last: int = POSITIONS - 1


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One event on one outbox; `reason` explains why a dead one is dead. The facts of the event are
    None if it is no longer retained, or not visible. Times are epoch ms."""

    subscription_id: str
    event_id: str
    position: str
    state: DeliveryState
    attempts: list[Attempt]
    event_type: str | None
    integration_id: str | None
    course_id: str | None
    reason: str | None = None
    next_attempt_at: int | None = None


class SortedSource(msgspec.Struct, frozen=True):
    """A sorted set of deliveries; `prefix` precedes the sort keys."""

    key: Key
    prefix: str = ""


class FindDeliveries(Script[list[str]]):
    """Reads the positions of the next deliveries of subscriptions, at most `most` from each source:
    for each subscription the sources, separated by bars, and in them positions on the outbox or
    sort keys, separated by blanks. The keys have a star in place of the subscription's id. One
    command finds out that the outbox and the `rare` sources are empty."""

    outbox: str | None
    usual: Sequence[SortedSource]
    rare: Sequence[SortedSource]
    ids: Sequence[str] = ()
    start_position: str = ""
    start_sort_key: str = ""
    end_position: str
    end_sort_key: str
    newest_first: bool
    most: int = 0


class PlaceArgument(msgspec.Struct, frozen=True):
    """A delivery to read."""

    id: str
    position: str
    sort_key: str


class DeliveryAsFound(msgspec.Struct, frozen=True, kw_only=True):
    """The stored facts of a delivery: whether it is on each queue and when its retry is due there,
    why it is dead, and its attempts."""

    pending: bool
    due: int | None
    replaying: bool
    replay_due: int | None
    dead: bytes | None
    delivered: bool
    records: list[bytes]

    @property
    def state(self) -> DeliveryState | None:
        """Its state; None if it was removed from its queue unsent, or is no longer on record."""
        if self.pending:
            return "pending" if self.due is None else "retrying"
        if self.dead is not None:
            return "dead"
        if self.delivered:
            return "delivered"
        if self.replaying:
            return "pending" if self.replay_due is None else "retrying"
        return None


class ReadDeliveries(Script[list[DeliveryAsFound]]):
    """Reads deliveries. The keys have a star in place of the subscription's id."""

    live: QueueKeys = keys.live_queue(_ANY)
    replayed: QueueKeys = keys.replayed_queue(_ANY)
    replayed_order: Key = keys.replayed_order(_ANY)
    dead_facts: Key = keys.outbox_dead_facts(_ANY)
    records: RecordKeys = keys.records(_ANY)
    places: Sequence[PlaceArgument]


# The sources of deliveries in each state, besides the outbox itself for pending ones.
_DELIVERED = SortedSource(keys.attempts_order(_ANY), "S")
_ATTEMPTED = SortedSource(keys.attempts_order(_ANY), "F")  # without success
_RARE: tuple[tuple[DeliveryState, SortedSource], ...] = (
    ("pending", SortedSource(keys.replayed_order(_ANY))),
    ("retrying", SortedSource(keys.outbox_retrying(_ANY))),
    ("retrying", SortedSource(keys.replayed_retrying(_ANY))),
    ("dead", SortedSource(keys.outbox_dead(_ANY))),
)


class Deliveries:
    """Reads deliveries; scripts of outboxes and replays write them."""

    def __init__(self, redis: Redis, attempts: Attempts, events: OutboxEvents) -> None:
        self._redis = redis
        self._attempts = attempts
        self._events = events

    async def page(
        self,
        subscription_ids: Collection[str],
        wanted: Wanted,
        *,
        limit: int,
        newest_first: bool = True,
        after: Place | None = None,
    ) -> tuple[list[Delivery], Place | None]:
        """At most `limit` deliveries in the order of their events, those of one event in the order
        of their subscriptions, and the place to continue from.

        It reads a bounded part of them, so it may return fewer, or none, although more follow.
        Delivered ones are known while their attempts are retained.
        """
        search = _Search(self._redis, subscription_ids, wanted, limit, newest_first, after)
        found: list[Delivery] = []
        examined = 0
        while examined < MAX_EXAMINED:
            count = min(max(limit - len(found), examined), _EXAMINED_AT_ONCE)
            places = await search.next(count)
            for place, delivery in zip(places, await self._read(places, wanted), strict=True):
                after = place
                if delivery is not None:
                    found.append(delivery)
                    if len(found) == limit:
                        is_last = place is places[-1] and not await search.next(1)
                        return found, None if is_last else place
            examined += len(places)
            if len(places) < count:
                return found, None
        return found, after

    async def _read(self, places: Sequence[Place], wanted: Wanted) -> list[Delivery | None]:
        """The deliveries at some places, None if one is not wanted or does not exist."""
        events = await self._events.heads(
            [(one.subscription_id, position_of(one.number)) for one in places]
        )
        chosen = [
            (place, event)
            for place, event in zip(places, events, strict=True)
            if _may_want(wanted.events, event)
        ]
        if not chosen:
            return [None] * len(places)
        arguments = [_argument(one.number, one.subscription_id) for one, _ in chosen]
        found = await run(self._redis, ReadDeliveries(places=arguments))
        deliveries = {
            place: self._delivery(place, one, event, wanted)
            for (place, event), one in zip(chosen, found, strict=True)
        }
        return [deliveries.get(place) for place in places]

    def _delivery(
        self, place: Place, found: DeliveryAsFound, event: StoredEvent | None, wanted: Wanted
    ) -> Delivery | None:
        state = found.state
        if state is None or (wanted.states and state not in wanted.states):
            return None
        made = self._attempts.decode(found.records)
        if not _ended_so(made, wanted) or not (event or made):
            return None
        position = position_of(place.number)
        event_id = event.id if event else made[-1].event_id
        if wanted.event_id is not None and event_id != wanted.event_id:
            return None
        due = [one for one in (found.due, found.replay_due) if one is not None]
        told = event if event and is_shown(event, wanted.events.grant) else None
        dead = found.dead if state == "dead" else None
        return Delivery(
            subscription_id=place.subscription_id,
            event_id=event_id,
            position=position,
            state=state,
            attempts=[self._attempts.decrypted(place.subscription_id, one) for one in made],
            event_type=told.type if told else None,
            integration_id=(told.integration_id or None) if told else None,
            course_id=(told.course_id or None) if told else None,
            reason=DeadLetter.of(position, dead).reason if dead else None,
            next_attempt_at=max(min(due), now_ms()) if due else None,
        )


class _Search:
    """Reads each subscription as far as the next places need."""

    def __init__(
        self,
        redis: Redis,
        subscription_ids: Collection[str],
        wanted: Wanted,
        limit: int,
        newest_first: bool,
        after: Place | None,
    ) -> None:
        self._redis = redis
        self._limit = limit
        # Redis reads one part while this process takes the result of another.
        self._looking = asyncio.Semaphore(2)
        self._merge = Merge(
            subscription_ids, (wanted.first, wanted.last), newest_first=newest_first, after=after
        )
        # The source of pending deliveries also contains retried ones.
        states: Collection[DeliveryState] = wanted.states or ("pending", "dead", "delivered")
        usual = [_DELIVERED] if "delivered" in states else []
        if (attempted := _attempted(wanted)) and not {"pending", "delivered"}.isdisjoint(states):
            states, usual = (), attempted
        end = position_of(self._merge.end)
        self._find = FindDeliveries(
            outbox=keys.outbox(_ANY) if "pending" in states else None,
            usual=usual,
            rare=[source for state, source in _RARE if state in states],
            end_position=end,
            end_sort_key=sort_key(end),
            newest_first=newest_first,
        )

    async def next(self, count: int) -> list[Place]:
        """The next places; fewer than `count` at the end."""
        places: list[Place] = []
        while len(places) < count:
            while looks := self._merge.looks(_FOUND_AT_ONCE):
                await asyncio.gather(*map(self._look, looks))
            place = self._merge.take()
            if place is None:
                break
            places.append(place)
        return places

    async def _look(self, look: Look) -> None:
        position = position_of(look.start)
        find = msgspec.structs.replace(
            self._find,
            ids=look.subscription_ids,
            start_position=position,
            start_sort_key=sort_key(position),
            most=min(max(2 * self._limit // len(look.ranks), MIN_LOOK), MAX_LOOK),
        )
        async with self._looking:
            answer = await run(self._redis, find)
            sources = [
                [[*map(_number, part.split())] for part in found.split("|") if part]
                for found in answer
            ]
            self._merge.found(look, sources, find.most)


@lru_cache(maxsize=4096)
def _number(found: str) -> int:
    """The number of a position, or of a position's sort key."""
    return position_number(found) if "-" in found else sort_key_number(found)


def _attempted(wanted: Wanted) -> list[SortedSource]:
    """Where all deliveries are found whose last attempt may be one that is wanted; nowhere if none
    is needed."""
    if wanted.outcomes is None and wanted.status is None:
        return []
    outcomes = {*(wanted.outcomes or OutcomeClass)}
    if wanted.status is not None and not 200 <= wanted.status <= 299:
        outcomes.discard(OutcomeClass.DELIVERED)
    succeeded = [_DELIVERED] if OutcomeClass.DELIVERED in outcomes else []
    return succeeded + [_ATTEMPTED] * bool(outcomes - {OutcomeClass.DELIVERED})


def _ended_so(made: Sequence[Attempt], wanted: Wanted) -> bool:
    """Whether the last attempt has the requested outcome and status."""
    outcome, status = (made[-1].outcome, made[-1].status) if made else (None, None)
    return (wanted.outcomes is None or outcome in wanted.outcomes) and (
        wanted.status is None or status == wanted.status
    )


def _may_want(wanted: EventFilter, event: StoredEvent | None) -> bool:
    """Whether a delivery of this event may match."""
    asks = (wanted.types, wanted.integration_id, wanted.course_id) != (None, None, None)
    return not asks or (event is not None and wanted.takes(event))


def _argument(number: int, subscription_id: str) -> PlaceArgument:
    position = position_of(number)
    return PlaceArgument(subscription_id, position, sort_key(position))
