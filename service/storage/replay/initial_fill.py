"""Creates subscriptions whose outboxes begin with retained events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from service.domain.access.grants import Grant
from service.domain.delivery.subscription import Subscription
from service.domain.egress.certificates import ClientCertificate
from service.domain.errors import ConflictError
from service.domain.events.event import Selection, order_key_of
from service.storage.events.announcing import RENDERINGS
from service.storage.events.event_log import EventLog
from service.storage.redis import keys
from service.storage.redis.keys import Key
from service.storage.redis.scripts import Script, run
from service.storage.registry.subscriptions import SubscriptionStore

if TYPE_CHECKING:
    from redis.asyncio import Redis

_SCANNED_AT_ONCE = 500
_LIFETIME_SECONDS = 600  # of an outbox whose subscription is never stored
_MAX_ROUNDS = 1_000  # times that the end of the log may move while it is being reached


class FilledEntry(msgspec.Struct, frozen=True):
    """A retained event to put on an outbox."""

    position: str
    order_key: str
    rendering: str


class FillOutbox(Script[None]):
    """Puts retained events on the outbox of a subscription that is about to be created, unless the
    outbox holds another number of entries than `held`. The outbox expires if the creation is
    interrupted."""

    outbox: Key
    held: int
    entries: Sequence[FilledEntry]
    kept_seconds: int = _LIFETIME_SECONDS


class Backlog:
    """Fills the outbox first and stores the subscription when it has caught up with the log.

    Later commits find the subscription, because commits compare the version of the subscriptions;
    events of earlier commits are in the log. So no event is missing or duplicated, and the outbox
    is in the order of the log.
    """

    def __init__(self, redis: Redis, log: EventLog, subscriptions: SubscriptionStore) -> None:
        self._redis = redis
        self._log = log
        self._subscriptions = subscriptions

    async def create(
        self,
        subscription: Subscription,
        secrets: Sequence[str],
        headers: Mapping[str, str],
        since: int | None,
        grant: Grant | None = None,
        certificate: ClientCertificate | None = None,
    ) -> None:
        """Stores a new subscription whose outbox contains the matching events of the log from
        `since` on (epoch ms; None: all retained ones) that `grant` includes."""
        selection = Selection(subscription, grant)
        start = "-" if since is None else str(since)
        held = 0
        for _ in range(_MAX_ROUNDS):
            start, held = await self._catch_up(subscription, selection, start, held)
            if await self._subscriptions.create(
                subscription, secrets, headers, certificate, read_up_to=start, begins=since or 0
            ):
                return
        await self._redis.unlink(keys.outbox(subscription.id))
        raise ConflictError("new events arrive too fast to start in the past: try again")

    async def _catch_up(
        self, subscription: Subscription, selection: Selection, start: str, held: int
    ) -> tuple[str, int]:
        """Reads to the end of the log; returns the next position, and the size of the outbox."""
        while True:
            found = await self._log.scan(start, "+", _SCANNED_AT_ONCE)
            rendering = RENDERINGS[subscription.rendering]
            wanted = [
                FilledEntry(event.position, order_key_of(event), rendering)
                for event in found
                if selection.takes(event)
            ]
            if wanted:
                outbox = keys.outbox(subscription.id)
                await run(self._redis, FillOutbox(outbox=outbox, held=held, entries=wanted))
                held += len(wanted)
            if found:
                start = f"({found[-1].position}"
            if len(found) < _SCANNED_AT_ONCE:
                return start, held
