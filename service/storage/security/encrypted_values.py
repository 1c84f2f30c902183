"""Everything that is kept sealed, wherever it is kept: found, and sealed anew."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Final, cast

import msgspec

from service.domain.errors import SealError
from service.storage.redis import keys
from service.storage.redis.keys import Key
from service.storage.redis.paging import IndexPosition, page_of_ids
from service.storage.redis.scripts import Script, run
from service.storage.security.encryption import (
    Sealer,
    key_name,
    owner_in_subscription,
    owner_of_api_key,
    owner_of_reply,
)
from service.storage.security.idempotency import SEALED_AT, is_answer

if TYPE_CHECKING:
    from redis.asyncio import Redis

AT_ONCE: Final = 200  # records that are read together
_SCANNED_AT_ONCE: Final = 1_000
_TRIES: Final = 20  # times that others may be quicker

CREDENTIALS: Final = "upstream API keys"
SECRETS: Final = "signing secrets"
HEADERS: Final = "subscription headers"
CERTIFICATES: Final = "client certificates"
REPLIES: Final = "stored answers"
KINDS: Final = (CREDENTIALS, SECRETS, HEADERS, CERTIFICATES, REPLIES)
_SUBSCRIPTION_FIELDS: Final = {
    SECRETS: "secrets",
    HEADERS: "headers",
    CERTIFICATES: "client_certificate",
}


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a sealed value is kept: a field of a hash, or behind `head` bytes of a string."""

    kind: str
    id: str
    key: Key
    owner: str
    field: str = ""
    head: int = 0


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept at a place."""

    place: Place
    stored: bytes

    @property
    def value(self) -> bytes:
        """The sealed value alone."""
        return self.stored[self.place.head :]

    @property
    def key_name(self) -> str | None:
        """The name of the key that sealed it, None if it is no sealed value."""
        return key_name(self.value)


class Reseal(Script[bool]):
    """Replaces a sealed value, unless it is no longer as read. Begins with a removal, so that
    encryption keys can be changed at the memory limit too. `place` is a string where there is no
    `field`."""

    place: Key
    field: str | None
    as_read: bytes
    anew: bytes


class SealedValues:
    """Reads and replaces sealed values without regard to what they mean."""

    def __init__(self, redis: Redis, sealer: Sealer) -> None:
        self._redis = redis
        self._sealer = sealer

    async def pages(self, kind: str) -> AsyncIterator[list[Sealed]]:
        """All of a kind, oldest first where there is an order. What is added or removed meanwhile
        may be among them or not; nothing else is left out."""
        if kind == REPLIES:
            places = self._replies()
        elif kind == CREDENTIALS:
            places = self._of_index(keys.CREDENTIALS, _api_key)
        else:
            places = self._of_index(keys.SUBSCRIPTIONS, _in_subscription(kind))
        async for page in places:
            yield await self.read(page)

    async def read(self, places: Sequence[Place]) -> list[Sealed]:
        """What is kept at these places, without those where nothing is."""
        if not places:
            return []
        async with self._redis.pipeline(transaction=False) as pipeline:
            for place in places:
                if place.field:
                    pipeline.hget(place.key, place.field)
                else:
                    pipeline.get(place.key)
            found = await pipeline.execute()
        return [
            Sealed(place=place, stored=stored)
            for place, stored in zip(places, found, strict=True)
            if stored is not None and (place.kind != REPLIES or is_answer(stored))
        ]

    def opens(self, sealed: Sealed) -> bool:
        """Whether one of the keys opens it, in this place."""
        try:
            self._sealer.open(sealed.value, sealed.place.owner)
        except SealError:
            return False
        return True

    async def reseal(self, sealed: Sealed) -> bool:
        """Sees to it that the value is sealed with the first key; false if others did.

        Whoever edits it meanwhile is right: then what they wrote is looked at. Raises SealError.
        """
        for _ in range(_TRIES):
            if sealed.key_name == self._sealer.first:
                return False
            place = sealed.place
            plain = self._sealer.open(sealed.value, place.owner)
            anew = sealed.stored[: place.head] + self._sealer.seal(plain, place.owner)
            field = place.field or None
            reseal = Reseal(place=place.key, field=field, as_read=sealed.stored, anew=anew)
            if await run(self._redis, reseal):
                return True
            found = await self.read([place])
            if not found:  # it has gone
                return False
            sealed = found[0]
        raise SealError(f"others keep replacing what is kept for {sealed.place.id}: try again")

    async def _of_index(
        self, index: str, place_of: Callable[[str], Place]
    ) -> AsyncIterator[list[Place]]:
        position: IndexPosition | None = None
        while True:
            ids, position = await page_of_ids(self._redis, index, AT_ONCE, position)
            yield [place_of(one) for one in ids]
            if position is None:
                return

    async def _replies(self) -> AsyncIterator[list[Place]]:
        cursor = 0
        while True:
            cursor, found = cast(
                "tuple[int, list[bytes]]",
                await self._redis.scan(cursor, match=keys.reply("*"), count=_SCANNED_AT_ONCE),
            )
            yield [_reply(Key(key.decode())) for key in found]
            if cursor == 0:
                return


def _api_key(credential_id: str) -> Place:
    return Place(
        kind=CREDENTIALS,
        id=credential_id,
        key=keys.credential(credential_id),
        field="api_key",
        owner=owner_of_api_key(credential_id),
    )


def _in_subscription(kind: str) -> Callable[[str], Place]:
    field = _SUBSCRIPTION_FIELDS[kind]

    def place(subscription_id: str) -> Place:
        return Place(
            kind=kind,
            id=subscription_id,
            key=keys.subscription(subscription_id),
            field=field,
            owner=owner_in_subscription(subscription_id, field),
        )

    return place


def _reply(key: Key) -> Place:
    name = key.removeprefix(keys.reply(""))
    return Place(kind=REPLIES, id=key, key=key, head=SEALED_AT, owner=owner_of_reply(name))
