"""All encrypted values in Redis: found, and re-encrypted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Final, cast

import msgspec

from service.domain.errors import DecryptionError
from service.storage.redis import keys
from service.storage.redis.keys import Key
from service.storage.redis.paging import IndexPosition, page_of_ids
from service.storage.redis.scripts import Script, run
from service.storage.security.encryption import (
    Encryptor,
    key_name,
    marked_api_key,
    owner_in_subscription,
    owner_of_api_key,
    owner_of_reply,
)
from service.storage.security.idempotency import ENCRYPTED_AT, is_answer

if TYPE_CHECKING:
    from redis.asyncio import Redis

AT_ONCE: Final = 200  # records that are read together
_SCANNED_AT_ONCE: Final = 1_000
_TRIES: Final = 20  # retries after concurrent changes

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


class Location(msgspec.Struct, frozen=True, kw_only=True):
    """The location of an encrypted value: a field of a hash, or a string after its first `head`
    bytes."""

    kind: str
    id: str
    key: Key
    owner: str
    field: str = ""
    head: int = 0


class EncryptedValue(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a location."""

    location: Location
    stored: bytes

    @property
    def value(self) -> bytes:
        """The encrypted value alone."""
        return self.stored[self.location.head :]

    @property
    def key_name(self) -> str | None:
        """The name of the key that encrypted it, None if it is not an encrypted value."""
        return key_name(self.value)


class Reencrypt(Script[bool]):
    """Replaces an encrypted value, unless it has changed. Begins with a removal, so that it runs
    even at the memory limit. `location` is a string if there is no `field`. A credential is then
    indexed by the new `mark` of its key."""

    location: Key
    by_values: Key = keys.CREDENTIALS_BY_VALUES
    id: str
    mark: str | None
    field: str | None
    as_read: bytes
    anew: bytes


class EncryptedValues:
    """Reads and replaces encrypted values without interpreting them."""

    def __init__(self, redis: Redis, encryptor: Encryptor) -> None:
        self._redis = redis
        self._encryptor = encryptor

    async def pages(self, kind: str) -> AsyncIterator[list[EncryptedValue]]:
        """All of a kind, oldest first if they have an order. Values that are added or removed
        meanwhile may be missing; no others are."""
        if kind == REPLIES:
            locations = self._replies()
        elif kind == CREDENTIALS:
            locations = self._of_index(keys.CREDENTIALS, _api_key)
        else:
            locations = self._of_index(keys.SUBSCRIPTIONS, _in_subscription(kind))
        async for page in locations:
            yield await self.read(page)

    async def read(self, locations: Sequence[Location]) -> list[EncryptedValue]:
        """The contents of these locations, without empty ones."""
        if not locations:
            return []
        async with self._redis.pipeline(transaction=False) as pipeline:
            for location in locations:
                if location.field:
                    pipeline.hget(location.key, location.field)
                else:
                    pipeline.get(location.key)
            found = await pipeline.execute()
        return [
            EncryptedValue(location=location, stored=stored)
            for location, stored in zip(locations, found, strict=True)
            if stored is not None and (location.kind != REPLIES or is_answer(stored))
        ]

    def can_decrypt(self, encrypted: EncryptedValue) -> bool:
        """Whether one of the keys can decrypt it, in this location."""
        try:
            self._encryptor.decrypt(encrypted.value, encrypted.location.owner)
        except DecryptionError:
            return False
        return True

    async def reencrypt(self, encrypted: EncryptedValue) -> bool:
        """Makes sure that the value is encrypted with the first key; false if it already was. A
        concurrent edit takes precedence: then the new value is checked. Raises DecryptionError.
        """
        for _ in range(_TRIES):
            if encrypted.key_name == self._encryptor.first:
                return False
            location = encrypted.location
            plain = self._encryptor.decrypt(encrypted.value, location.owner)
            anew = encrypted.stored[: location.head] + self._encryptor.encrypt(
                plain, location.owner
            )
            field = location.field or None
            is_key = location.kind == CREDENTIALS
            reencrypt = Reencrypt(
                location=location.key,
                id=location.id,
                mark=self._encryptor.mark(marked_api_key(plain)).hex() if is_key else None,
                field=field,
                as_read=encrypted.stored,
                anew=anew,
            )
            if await run(self._redis, reencrypt):
                return True
            found = await self.read([location])
            if not found:  # it was deleted
                return False
            encrypted = found[0]
        raise DecryptionError(
            f"other requests keep replacing the secret of {encrypted.location.id}: try again"
        )

    async def _of_index(
        self, index: str, place_of: Callable[[str], Location]
    ) -> AsyncIterator[list[Location]]:
        position: IndexPosition | None = None
        while True:
            ids, position = await page_of_ids(self._redis, index, AT_ONCE, position)
            yield [place_of(one) for one in ids]
            if position is None:
                return

    async def _replies(self) -> AsyncIterator[list[Location]]:
        cursor = 0
        while True:
            cursor, found = cast(
                "tuple[int, list[bytes]]",
                await self._redis.scan(cursor, match=keys.reply("*"), count=_SCANNED_AT_ONCE),
            )
            yield [_reply(Key(key.decode())) for key in found]
            if cursor == 0:
                return


def _api_key(credential_id: str) -> Location:
    return Location(
        kind=CREDENTIALS,
        id=credential_id,
        key=keys.credential(credential_id),
        field="api_key",
        owner=owner_of_api_key(credential_id),
    )


def _in_subscription(kind: str) -> Callable[[str], Location]:
    field = _SUBSCRIPTION_FIELDS[kind]

    def location(subscription_id: str) -> Location:
        return Location(
            kind=kind,
            id=subscription_id,
            key=keys.subscription(subscription_id),
            field=field,
            owner=owner_in_subscription(subscription_id, field),
        )

    return location


def _reply(key: Key) -> Location:
    name = key.removeprefix(keys.reply(""))
    return Location(kind=REPLIES, id=key, key=key, head=ENCRYPTED_AT, owner=owner_of_reply(name))
