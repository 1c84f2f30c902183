"""Feeds replays in bounded parts: selects the events of the log, or of the dead letters, to send
again."""

from __future__ import annotations

import time

import msgspec
from redis.exceptions import OutOfMemoryError

from service.domain.delivery.event_types import includes
from service.domain.delivery.subscription import Subscription
from service.domain.events.event import EventHead, Selection, order_key_of, rfc3339
from service.domain.events.identifiers import (
    is_backfilled,
    position_before,
    position_ms,
    position_order,
)
from service.domain.replay.replay import Replay, ReplayProgress
from service.logs import get_logger
from service.storage.delivery.attempts import Attempts
from service.storage.delivery.dead_letters import DeadLetters
from service.storage.delivery.outboxes import Outboxes
from service.storage.events.announcing import RENDERINGS
from service.storage.events.event_log import EventLog
from service.storage.redis.memory import MEMORY_WAIT_MS
from service.storage.replay.replays import Part, Replayed, Replays
from service.storage.scheduling.leases import Lease
from service.storage.security.api_keys import ApiKeys
from workers.delivery.backfill_feed import Backfiller

SCANNED = 200  # events examined in one step
PAUSE_SECONDS = 1.0  # until a failed step is repeated
FULL_WAIT_MS = 300_000  # until the next turn if many events wait for retries

BACKFILLED_DEAD = (
    "dead deliveries of backfills were left out: their events are kept no longer than they are "
    "pending; ask for another backfill instead"
)

_log = get_logger("replay")


class FeedStores(msgspec.Struct, frozen=True, kw_only=True):
    """The stores that replays use."""

    replays: Replays
    events: EventLog
    outboxes: Outboxes
    attempts: Attempts
    dead: DeadLetters
    api_keys: ApiKeys


class Feeder:
    """Feeds the replays of one outbox during one turn, one after the other."""

    def __init__(
        self, stores: FeedStores, backfiller: Backfiller, lease: Lease, subscription: Subscription
    ) -> None:
        self._stores = stores
        self._lease = lease
        self._subscription = subscription
        self._selection: Selection | None = None
        self._backfiller = backfiller
        self._idle = False
        self._blocked_until = 0.0
        self._wait_ms = 0

    @property
    def ready(self) -> bool:
        """Whether another step can be made now."""
        return not self._idle and time.monotonic() >= self._blocked_until

    @property
    def wait_ms(self) -> int:
        """The wait of a replay until it is fed."""
        return self._wait_ms if time.monotonic() < self._blocked_until else 0

    async def step(self) -> bool:
        """Continues the current replay by one part; returns whether that added events to send."""
        found = await self._stores.replays.next(self._subscription.id)
        if found is None:
            self._idle = True
            return False
        replay, progress = found
        if self._selection is None:
            grant = await self._stores.api_keys.grant_of(self._subscription.owner)
            self._selection = Selection(self._subscription, grant)
        wait_ms = 0
        if replay.which == "backfill":
            step = await self._backfiller.step(replay, progress, self._selection)
            wait_ms = step.wait_ms
            if step.part is None:
                self._block(wait_ms, wait_ms)
                return False
            part = step.part
        else:
            part = await self._part(replay, progress, self._selection)
        try:
            status = await self._stores.replays.feed(self._lease, replay, progress, part)
        except OutOfMemoryError:
            # Deliveries continue, and free memory.
            self._block(PAUSE_SECONDS * 1000, MEMORY_WAIT_MS)
            return False
        if status == "FULL":
            self._block(PAUSE_SECONDS * 1000, FULL_WAIT_MS)
        elif wait_ms:
            self._block(wait_ms, wait_ms)
        if status == "OK" and (part.last or part.error):
            _log.info(
                "replay queued completely",
                replay=replay.id,
                which=replay.which,
                error=part.error or None,
            )
        return status == "OK" and bool(part.entries)

    def _block(self, pause_ms: float, wait_ms: int) -> None:
        """Makes no step for `pause_ms` of this turn, and sets the wait to `wait_ms`."""
        self._blocked_until = time.monotonic() + pause_ms / 1000
        self._wait_ms = wait_ms

    async def _part(self, replay: Replay, progress: ReplayProgress, selection: Selection) -> Part:
        if replay.which == "dead":
            return await self._dead(replay, progress)
        start = f"({progress.position}" if progress.position else replay.start
        found = await self._stores.events.scan(start, replay.end, SCANNED)
        chosen = [
            event
            for event in found
            if (replay.event_types is None or includes(replay.event_types, event.type))
            and selection.takes(event)
        ]
        error = ""
        if replay.which == "missing" and found:
            chosen, error = await self._missing(found, chosen)
        return Part(
            position=found[-1].position if found and not error else progress.position,
            scanned=0 if error else len(found),
            entries=[
                Replayed(
                    order_key_of(event),
                    RENDERINGS[self._subscription.rendering],
                    event.position,
                )
                for event in chosen
            ],
            last=len(found) < SCANNED,
            note=await self._overtaken(replay, progress),
            error=error,
        )

    async def _missing(
        self, found: list[EventHead], chosen: list[EventHead]
    ) -> tuple[list[EventHead], str]:
        """The chosen events that are neither delivered nor pending, or the reason why that is
        unknown."""
        stores, subscription_id = self._stores, self._subscription.id
        # In this order: an entry that leaves the outbox meanwhile is on record when the records are
        # read.
        span = (found[0].position, found[-1].position)
        pending = await stores.outboxes.pending(subscription_id, *span)
        pending |= await stores.replays.being_replayed(subscription_id, *span)
        delivered = await stores.attempts.delivered(subscription_id, *span)
        reach = await stores.attempts.reach(subscription_id)
        if reach is not None and position_ms(found[0].position) < reach:
            return [], (
                f"attempts before {rfc3339(reach)} are no longer on record, so what was not "
                "delivered of earlier events is not known; replay `all` of them"
            )
        known = pending | delivered
        return [event for event in chosen if event.position not in known], ""

    async def _dead(self, replay: Replay, progress: ReplayProgress) -> Part:
        stores = self._stores
        after = progress.position
        if not after:
            _, trimmed = await stores.events.bounds()
            since = position_before(replay.since or 0)
            after = max(trimmed, since, key=position_order)
        page = await stores.dead.page(self._subscription.id, after, SCANNED)
        end = position_order(replay.end)
        found = [one for one in page if position_order(one.position) <= end]
        chosen = found
        if replay.event_types is not None:
            events = await stores.events.get_many([one.position for one in found])
            chosen = [
                one
                for one, event in zip(found, events, strict=True)
                if event is not None and includes(replay.event_types, event.type)
            ]
        return Part(
            position=found[-1].position if found else progress.position,
            scanned=len(found),
            entries=[
                Replayed(one.order_key, one.rendering, one.position)
                for one in chosen
                if not is_backfilled(one.position)
            ],
            last=len(found) < SCANNED,
            note=(
                BACKFILLED_DEAD
                if any(is_backfilled(one.position) for one in chosen)
                else await self._overtaken(replay, progress)
            ),
        )

    async def _overtaken(self, replay: Replay, progress: ReplayProgress) -> str:
        """The note of a replay if events were trimmed before it reached them."""
        reached = progress.position or (f"{replay.since}-0" if replay.since is not None else "")
        _, trimmed = await self._stores.events.bounds()
        if not reached or position_order(trimmed) <= position_order(reached):
            return ""
        return (
            f"events up to {rfc3339(position_ms(trimmed))} were trimmed by the retention before "
            "the replay reached them"
        )
