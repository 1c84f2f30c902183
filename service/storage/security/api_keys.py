"""API keys: their records, the hashes of their tokens, and the key of a token."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

import msgspec
from redis.exceptions import RedisError

from service.clock import now_ms
from service.domain.access.grants import NOTHING, ApiKey, Grant
from service.domain.errors import ConflictError, NotFoundError, StaleRecordError
from service.domain.events.event import rfc3339
from service.domain.events.identifiers import encode_random
from service.storage.redis import keys
from service.storage.redis.hashes import read_field, read_fields
from service.storage.redis.keys import Key
from service.storage.redis.optimistic_edit import edit
from service.storage.redis.paging import IndexPosition, page_of_ids
from service.storage.redis.recent_reads import RecentReads
from service.storage.redis.scripts import Script, run

if TYPE_CHECKING:
    from redis.asyncio import Redis

ID_PREFIX: Final = "key_"
TOKEN_PREFIX: Final = "cwk_"  # noqa: S105 - the beginning of every token
TOUCH_MS: Final = 60_000  # between two records that a key is in use
_SECRET_LENGTH = 52  # characters of 5 bits: 260 random bits
_TOKEN = re.compile(r"cwk_([0-9a-z]{20})_[0-9a-z]{52}")

_decode = msgspec.json.Decoder(ApiKey).decode
_encode = msgspec.json.encode


def token_prefix(key_id: str) -> str:
    """The beginning of a key's token, which identifies a leaked token."""
    return TOKEN_PREFIX + key_id.removeprefix(ID_PREFIX)


def new_token(key_id: str) -> str:
    """A new token of a key."""
    secret = encode_random(secrets.token_bytes(_SECRET_LENGTH), _SECRET_LENGTH)
    return f"{token_prefix(key_id)}_{secret}"


def digest(token: str) -> bytes:
    """The stored form of a token: a plain SHA-256.

    Slow hashes slow down guessing. 260 random bits cannot be guessed at any speed, and a slow hash
    would delay every request.
    """
    return hashlib.sha256(token.encode()).digest()


class StoredKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key, its last use, to the minute, and the end of the previous token; epoch ms, None for
    never."""

    key: ApiKey
    last_used_at: int | None
    previous_until: int | None = None


class _Known(msgspec.Struct, frozen=True):
    key: ApiKey
    digest: bytes
    previous_digest: bytes | None
    previous_until: int


class WriteApiKey(Script[None]):
    """Stores a new or an edited API key, and the digest of its token if that is new; the previous
    token ends, or stays valid until `previous_until` (ms). An edit increments the subscriptions'
    version, because it may change which events the key's subscriptions receive. Refuses with STALE;
    `as_read` is None for a new key."""

    api_key: Key
    api_keys: Key = keys.API_KEYS
    subscriptions_version: Key = keys.SUBSCRIPTIONS_VERSION
    id: str
    created_at: int
    as_read: bytes | None
    record: bytes
    digest: bytes | None
    previous_until: int | None


class RevokeApiKey(Script[bool]):
    """Revokes an API key; false if there is none. Its subscriptions stay, and receive no events."""

    api_key: Key
    api_keys: Key = keys.API_KEYS
    subscriptions_version: Key = keys.SUBSCRIPTIONS_VERSION
    id: str


class TouchApiKey(Script[None]):
    """Records that an API key is in use, unless that was recorded lately or the key was revoked."""

    api_key: Key
    between_ms: int = TOUCH_MS


class ApiKeys:
    """Stores API keys, and caches those that were read for a second."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self.recent = RecentReads(self._read)

    async def create(self, key: ApiKey) -> str:
        """Stores a new key and returns its token, which is not stored."""
        token = new_token(key.id)
        try:
            await self._store(key, None, token)
        except StaleRecordError:
            raise ConflictError(f"there is an API key {key.id} already") from None
        return token

    async def get(self, key_id: str) -> StoredKey:
        """One key. Raises NotFoundError."""
        (found,) = await self._get_many([key_id])
        if found is None:
            raise _not_found(key_id)
        return found

    async def page(
        self, limit: int, after: IndexPosition | None = None
    ) -> tuple[list[StoredKey], IndexPosition | None]:
        """At most `limit` keys in the order of creation, and the next position."""
        ids, position = await page_of_ids(self._redis, keys.API_KEYS, limit, after)
        return [one for one in await self._get_many(ids) if one is not None], position

    async def update(self, key_id: str, change: Callable[[ApiKey], ApiKey]) -> StoredKey:
        """Applies `change` to the stored record. Raises NotFoundError or the errors of `change`."""

        async def attempt(_: bool) -> None:
            record = await read_field(self._redis, keys.api_key(key_id), "record")
            if record is None:
                raise _not_found(key_id)
            await self._store(change(_decode(record)), record)

        return await self._edited(key_id, attempt)

    async def rotate(self, key_id: str, overlap_ms: int) -> tuple[StoredKey, str]:
        """Replaces the token of a key, and returns the new one. The present token stays valid for
        `overlap_ms`; one from an earlier rotation ends. Raises NotFoundError, or ConflictError if
        three tokens would be valid."""
        token = new_token(key_id)

        async def attempt(_: bool) -> None:
            record, until = await read_fields(
                self._redis, keys.api_key(key_id), ("record", "previous_until")
            )
            if record is None:
                raise _not_found(key_id)
            now = now_ms()
            if overlap_ms and int(until or 0) > now:
                raise ConflictError(
                    f"two tokens of API key {key_id} are valid already; wait until "
                    f"{rfc3339(int(until or 0))}, or send overlap_seconds 0 to end both"
                )
            before = _decode(record)
            after = msgspec.structs.replace(before, updated_at=max(now, before.updated_at + 1))
            await self._store(after, record, token, now + overlap_ms if overlap_ms else None)

        return await self._edited(key_id, attempt), token

    async def _edited(self, key_id: str, attempt: Callable[[bool], Awaitable[None]]) -> StoredKey:
        await edit(f"another request is editing API key {key_id}", attempt)
        self.recent.forget(key_id)
        return await self.get(key_id)

    async def revoke(self, key_id: str) -> None:
        """Deletes a key; its token becomes invalid, in other processes within a second. Raises
        NotFoundError."""
        revoked = await run(self._redis, RevokeApiKey(api_key=keys.api_key(key_id), id=key_id))
        self.recent.forget(key_id)
        if not revoked:
            raise _not_found(key_id)

    async def holder(self, token: str) -> ApiKey | None:
        """The valid key of a token, None if there is none. `expires_at` is the token's, which ends
        earlier if it was rotated."""
        named = _TOKEN.fullmatch(token)
        if named is None:
            return None
        known = await self.recent.get(ID_PREFIX + named[1])
        if known is None:
            return None
        key, given = known.key, digest(token)
        if not hmac.compare_digest(known.digest, given):
            if not hmac.compare_digest(known.previous_digest or b"", given):
                return None
            ends = min(known.previous_until, key.expires_at or known.previous_until)
            key = msgspec.structs.replace(key, expires_at=ends)
        return key if key.is_valid(now_ms()) else None

    async def current(self, key_id: str) -> ApiKey | None:
        """A key's state, at most a second old; None if it was revoked or has expired."""
        known = await self.recent.get(key_id)
        return known.key if known is not None and known.key.is_valid(now_ms()) else None

    async def grant_of(self, owner: str | None) -> Grant | None:
        """The events that the subscriptions of `owner` may receive at this moment; None:
        everything."""
        if owner is None:
            return None
        record = await read_field(self._redis, keys.api_key(owner), "record")
        if record is None or not (key := _decode(record)).is_valid(now_ms()):
            return NOTHING
        return key.visibility or NOTHING

    async def _read(self, key_id: str) -> _Known | None:
        record, stored, used, previous, until = await read_fields(
            self._redis,
            keys.api_key(key_id),
            ("record", "digest", "last_used_at", "previous_digest", "previous_until"),
        )
        if record is None or stored is None:
            return None
        if now_ms() - int(used or 0) >= TOUCH_MS:
            await self._note_use(key_id)
        return _Known(_decode(record), stored, previous, int(until or 0))

    async def _note_use(self, key_id: str) -> None:
        try:
            await run(self._redis, TouchApiKey(api_key=keys.api_key(key_id)))
        except RedisError:
            return  # as at the memory limit; the request is accepted nevertheless

    async def _get_many(self, key_ids: Sequence[str]) -> list[StoredKey | None]:
        if not key_ids:
            return []
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key_id in key_ids:
                pipeline.hmget(keys.api_key(key_id), ["record", "last_used_at", "previous_until"])
            found = await pipeline.execute()
        now = now_ms()
        return [
            None
            if record is None
            else StoredKey(
                key=_decode(record),
                last_used_at=None if used is None else int(used),
                previous_until=int(until) if int(until or 0) > now else None,
            )
            for record, used, until in found
        ]

    async def _store(
        self,
        key: ApiKey,
        as_read: bytes | None,
        token: str | None = None,
        previous_until: int | None = None,
    ) -> None:
        write = WriteApiKey(
            api_key=keys.api_key(key.id),
            id=key.id,
            created_at=key.created_at,
            as_read=as_read,
            record=_encode(key),
            digest=None if token is None else digest(token),
            previous_until=previous_until,
        )
        await run(self._redis, write)


def _not_found(key_id: str) -> NotFoundError:
    return NotFoundError(f"there is no API key {key_id}")
