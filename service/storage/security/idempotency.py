"""Replies: encrypted responses to requests with an idempotency key, for repetitions."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, cast

import msgspec

from service.domain.errors import IdempotencyMismatchError, RequestRunningError
from service.ids import new_token
from service.storage.redis import keys
from service.storage.redis.keys import Key
from service.storage.redis.scripts import Script, run
from service.storage.security.encryption import Encryptor, owner_of_reply

if TYPE_CHECKING:
    from redis.asyncio import Redis

KEPT_SECONDS: Final = 86_400
RUNNING_SECONDS: Final = 180  # longer than any request takes; then its process counts as dead
ENCRYPTED_AT: Final = 1  # where the encrypted answer begins
_RUNNING = b"r"
_ANSWERED = b"s"
_MARK = slice(1, 33)


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The stored part of a response."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A running request: the location of its response, and the mark that reserves it."""

    key: Key
    owner: str
    digest: bytes
    mark: bytes


class _Answered(msgspec.Struct, frozen=True, kw_only=True):
    """An answer and the digest of the request that had it."""

    digest: bytes
    reply: Reply


def is_answer(stored: bytes) -> bool:
    """Whether a stored value is a response, and not a running request."""
    return stored[:ENCRYPTED_AT] == _ANSWERED


_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(_Answered).decode


class SettleReply(Script[None]):
    """Stores the response to a request with an idempotency key, or removes the request if there is
    no response. It does nothing if another request has taken the place."""

    reply: Key
    mark: bytes
    answer: bytes | None
    kept_seconds: int = KEPT_SECONDS


class Replies:
    """Stored values begin with `r`, a mark of the request and a random one while it is running,
    or with `s` and the encrypted response. A request may contain secrets, so neither form
    reveals it."""

    def __init__(self, redis: Redis, encryptor: Encryptor) -> None:
        self._redis = redis
        self._encryptor = encryptor

    async def begin(self, actor: str, idempotency_key: str, request: bytes) -> Running | Reply:
        """Reserves the place of an actor's request, or returns the stored response. `request` is
        everything that identifies a repetition. Raises RequestRunningError while the first request
        is running, IdempotencyMismatchError if the first request differs.
        """
        name = hashlib.sha256(f"{actor} {idempotency_key}".encode()).hexdigest()
        digest = hashlib.sha256(request).digest()
        running = Running(
            key=keys.reply(name),
            owner=owner_of_reply(name),
            digest=digest,
            mark=_RUNNING + self._encryptor.mark(digest) + new_token().encode(),
        )
        for _ in range(2):  # the stored value may have expired in between
            if await self._redis.set(running.key, running.mark, nx=True, ex=RUNNING_SECONDS):
                return running
            found = cast("bytes | None", await self._redis.get(running.key))
            if found is not None:
                return self._found(running, found)
        raise RequestRunningError

    async def keep(self, running: Running, reply: Reply) -> None:
        """Stores the response."""
        answered = _encode(_Answered(digest=running.digest, reply=reply))
        encrypted = self._encryptor.encrypt(answered, running.owner)
        answer = _ANSWERED + encrypted
        await run(self._redis, SettleReply(reply=running.key, mark=running.mark, answer=answer))

    async def forget(self, running: Running) -> None:
        """Removes the reservation, so that the request can be sent again."""
        await run(self._redis, SettleReply(reply=running.key, mark=running.mark, answer=None))

    def _found(self, running: Running, found: bytes) -> Reply:
        if not is_answer(found):
            if self._encryptor.is_marked(running.digest, found[_MARK]):
                raise RequestRunningError
            raise IdempotencyMismatchError
        answered = _decode(self._encryptor.decrypt(found[ENCRYPTED_AT:], running.owner))
        if answered.digest != running.digest:
            raise IdempotencyMismatchError
        return answered.reply
