"""Replies: answers to requests with an idempotency key, sealed, so that they can be given again."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, cast

import msgspec

from service.domain.errors import IdempotencyMismatchError, RequestRunningError
from service.storage import keys
from service.storage.ids import new_token
from service.storage.scripts import load
from service.storage.sealing import Sealer

if TYPE_CHECKING:
    from redis.asyncio import Redis

KEPT_SECONDS: Final = 86_400
RUNNING_SECONDS: Final = 180  # longer than any request takes; then its process is taken for dead
_FINGERPRINT_BYTES = 32


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """An answer: what is kept of it."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A request under way: where its answer goes, and the mark that keeps its place."""

    key: str
    owner: str
    fingerprint: bytes
    mark: bytes


_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(Reply).decode


class Replies:
    """What is stored begins with the request's fingerprint; then comes `r` and a random mark
    while it is running, or `s` and the sealed answer."""

    def __init__(self, redis: Redis, sealer: Sealer) -> None:
        self._redis = redis
        self._sealer = sealer
        self._settle = load(redis, "settle_reply")

    async def begin(self, actor: str, idempotency_key: str, request: bytes) -> Running | Reply:
        """Takes the place of a request of this actor, or gives the answer it had before.

        `request` is everything that makes two requests the same. Raises RequestRunningError
        while the first is under way, IdempotencyMismatchError if that was another request.
        """
        name = hashlib.sha256(f"{actor} {idempotency_key}".encode()).hexdigest()
        fingerprint = hashlib.sha256(request).digest()
        running = Running(
            key=keys.reply(name),
            owner=f"reply:{name}",
            fingerprint=fingerprint,
            mark=fingerprint + b"r" + new_token().encode(),
        )
        for _ in range(2):  # what was there may have gone in between
            if await self._redis.set(running.key, running.mark, nx=True, ex=RUNNING_SECONDS):
                return running
            found = cast("bytes | None", await self._redis.get(running.key))
            if found is not None:
                return self._found(running, found)
        raise RequestRunningError

    async def keep(self, running: Running, reply: Reply) -> None:
        """Keeps the answer."""
        sealed = self._sealer.seal(_encode(reply), running.owner)
        await self._settle(
            keys=[running.key],
            args=[running.mark, running.fingerprint + b"s" + sealed, KEPT_SECONDS],
        )

    async def forget(self, running: Running) -> None:
        """Lets the request be made again."""
        await self._settle(keys=[running.key], args=[running.mark, b"", 0])

    def _found(self, running: Running, found: bytes) -> Reply:
        fingerprint, kind = found[:_FINGERPRINT_BYTES], found[_FINGERPRINT_BYTES:][:1]
        if fingerprint != running.fingerprint:
            raise IdempotencyMismatchError
        if kind == b"r":
            raise RequestRunningError
        return _decode(self._sealer.open(found[_FINGERPRINT_BYTES + 1 :], running.owner))
