"""Deliveries as people look at them: one event on one outbox, with its recorded attempts."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import msgspec
from redis.exceptions import ResponseError

from service.domain.delivery.outcome import Outcome
from service.domain.delivery.subscription import DeliveryState
from service.domain.errors import DecryptionError
from service.domain.events.identifiers import event_position, position_ms, position_order
from service.storage.delivery.dead_letters import DeadLetters
from service.storage.delivery.outbox_scripts import MAX_ATTEMPT_RECORDS
from service.storage.events.lookup import OutboxEvents
from service.storage.redis import keys
from service.storage.redis.streams import StreamEntry, read_stream
from service.storage.security.encryption import Encryptor, owner_in_subscription

if TYPE_CHECKING:
    from redis.asyncio import Redis

_READ_AT_ONCE = 1_000  # attempt records


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One HTTP POST of a delivery and what came back. Times are epoch ms.

    `outcome` is the outcome's class; `excerpt` the beginning of the answer as text, which on record
    is `encrypted` (base64), because an answer may repeat anything that was sent;
    `next_attempt_at` is None if there is to be none; one that is not `counted` failed through
    our own network and uses up nothing of the schedule; `replay` means that it was one of a replay.
    """

    event_id: str
    number: int
    at: int
    outcome: str
    duration_ms: int
    status: int | None = None
    dns_ms: int | None = None
    connect_ms: int | None = None
    first_byte_ms: int | None = None
    error: str | None = None
    excerpt: str = ""
    encrypted: str = ""
    next_attempt_at: int | None = None
    counted: bool = True
    replay: bool = False

    @classmethod
    def of(
        cls,
        outcome: Outcome,
        *,
        event_id: str,
        at: int,
        number: int = 1,
        next_attempt_at: int | None = None,
        counted: bool = True,
        replay: bool = False,
    ) -> Attempt:
        """What is kept of an attempt that came to `outcome`."""
        return cls(
            event_id=event_id,
            number=number,
            at=at,
            outcome=outcome.kind,
            duration_ms=outcome.duration_ms,
            status=outcome.status,
            dns_ms=outcome.dns_ms,
            connect_ms=outcome.connect_ms,
            first_byte_ms=outcome.first_byte_ms,
            error=outcome.error,
            excerpt=outcome.excerpt.decode("utf-8", "replace"),
            next_attempt_at=next_attempt_at,
            counted=counted,
            replay=replay,
        )


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One event on one outbox; `reason` is why a dead one was given up."""

    subscription_id: str
    event_id: str
    position: str
    state: DeliveryState
    attempts: list[Attempt]
    reason: str | None = None


_decode = msgspec.json.Decoder(Attempt).decode
_encode = msgspec.json.Encoder().encode


class Attempts:
    """Reads attempt records; only the recording script writes them."""

    def __init__(
        self, redis: Redis, encryptor: Encryptor, events: OutboxEvents, dead: DeadLetters
    ) -> None:
        self._redis = redis
        self._encryptor = encryptor
        self._events = events
        self._dead = dead

    def encode(self, subscription_id: str, attempt: Attempt) -> bytes:
        """An attempt as it is recorded."""
        if attempt.excerpt:
            owner = owner_in_subscription(subscription_id, "attempts")
            encrypted = self._encryptor.encrypt(attempt.excerpt.encode(), owner)
            attempt = msgspec.structs.replace(
                attempt, excerpt="", encrypted=base64.b64encode(encrypted).decode()
            )
        return _encode(attempt)

    def _decrypted(self, subscription_id: str, attempt: Attempt) -> Attempt:
        """An attempt with its excerpt, if the key that encrypted the excerpt is still there."""
        if not attempt.encrypted:
            return attempt
        try:
            excerpt = self._encryptor.decrypt(
                base64.b64decode(attempt.encrypted),
                owner_in_subscription(subscription_id, "attempts"),
            ).decode()
        except (DecryptionError, ValueError):
            excerpt = ""
        return msgspec.structs.replace(attempt, excerpt=excerpt, encrypted="")

    async def deliveries(
        self,
        subscription_id: str,
        *,
        event_id: str | None = None,
        state: DeliveryState | None = None,
        limit: int,
        after: str | None = None,
    ) -> tuple[list[Delivery], str | None]:
        """Deliveries behind the log position `after`, oldest event first, and the position to
        go on from. Delivered ones are known for as long as their attempts are retained."""
        only = None
        if event_id is not None:
            found_at = event_position(event_id)
            if found_at is None:
                return [], None
            only = found_at[0]
        attempts = await self._attempts(subscription_id, only)
        states = await self._states(subscription_id, attempts, only, after, limit)
        chosen = sorted(
            (
                position
                for position, (current, _) in states.items()
                if (state is None or current == state)
                and (only is None or position == only)
                and (after is None or position_order(position) > position_order(after))
            ),
            key=position_order,
        )
        page = chosen[:limit]
        events = await self._events.get_many(subscription_id, page)
        deliveries = []
        for position, event in zip(page, events, strict=True):
            made = [self._decrypted(subscription_id, one) for one in attempts.get(position, ())]
            if event is not None or made:
                current, reason = states[position]
                delivery = Delivery(
                    subscription_id=subscription_id,
                    event_id=made[-1].event_id if event is None else event.id,
                    position=position,
                    state=current,
                    attempts=made,
                    reason=reason,
                )
                deliveries.append(delivery)
        return deliveries, page[-1] if len(chosen) > limit else None

    async def _states(
        self,
        subscription_id: str,
        attempts: Mapping[str, list[Attempt]],
        only: str | None,
        after: str | None,
        limit: int,
    ) -> dict[str, tuple[DeliveryState, str | None]]:
        """The state of each delivery by log position, and why the dead ones were given up. Of dead
        and pending ones, those that the page behind `after` may need."""
        states: dict[str, tuple[DeliveryState, str | None]] = {
            position: ("delivered", None)
            for position, made in attempts.items()
            if any(one.outcome == "delivered" for one in made)
        }
        if only is None:
            dead = await self._dead.page(subscription_id, after, limit + 1)
        else:
            dead = [one for one in await self._dead.get_many(subscription_id, [only]) if one]
        for one in dead:
            states[one.position] = ("dead", one.reason)
        for position in await self._pending(subscription_id, only, after, limit):
            states[position] = ("pending", None)
        for position in await self._being_replayed(subscription_id):
            states.setdefault(position, ("pending", None))
        return states

    async def reach(self, subscription_id: str) -> int | None:
        """From when on all attempts are on record, epoch ms; None: all that ever were."""
        try:
            about = await self._redis.xinfo_stream(keys.attempts(subscription_id))
        except ResponseError:  # there has been none
            return None
        first = about["first-entry"]
        if first is None:
            return position_ms(about["last-generated-id"].decode()) + 1
        if about.get("entries-added") == about["length"]:
            return None
        return position_ms(first[0].decode())

    async def successes(
        self, subscription_id: str, after: str | None, count: int
    ) -> tuple[set[str], str | None, bool]:
        """The log positions that attempts behind the record `after` delivered, the last record
        looked at, and whether there may be more."""
        found = await read_stream(self._redis, keys.attempts(subscription_id), after, count)
        positions = {
            fields[b"p"].decode()
            for _, fields in found
            if _decode(fields[b"d"]).outcome == "delivered"
        }
        last = found[-1][0].decode() if found else after
        return positions, last, len(found) == count

    async def _attempts(self, subscription_id: str, only: str | None) -> dict[str, list[Attempt]]:
        """All attempts on record by log position, their excerpts encrypted."""
        found = await read_stream(
            self._redis, keys.attempts(subscription_id), None, 2 * MAX_ATTEMPT_RECORDS
        )
        attempts: dict[str, list[Attempt]] = {}
        for _, fields in found:
            position = fields[b"p"].decode()
            if only is None or position == only:
                attempts.setdefault(position, []).append(_decode(fields[b"d"]))
        return attempts

    async def _pending(
        self, subscription_id: str, only: str | None, after: str | None, limit: int
    ) -> list[str]:
        if only is not None:
            found = await self._redis.xrange(keys.outbox(subscription_id), only, only)
            return [only] if found else []
        page = await read_stream(self._redis, keys.outbox(subscription_id), after, limit + 1)
        return [entry_id.decode() for entry_id, _ in page]

    async def _being_replayed(self, subscription_id: str) -> list[str]:
        found = await self._redis.xrange(keys.replayed(subscription_id), "-", "+")
        return [fields[b"p"].decode() for _, fields in cast("list[StreamEntry]", found)]


class Successes:
    """The log positions whose delivery is on record, read once and then kept up with."""

    def __init__(self, attempts: Attempts, subscription_id: str) -> None:
        self.positions: set[str] = set()
        self._attempts = attempts
        self._subscription_id = subscription_id
        self._read_up_to: str | None = None

    async def read_on(self) -> None:
        """Takes in what has been recorded since."""
        more = True
        while more:
            positions, self._read_up_to, more = await self._attempts.successes(
                self._subscription_id, self._read_up_to, _READ_AT_ONCE
            )
            self.positions |= positions
