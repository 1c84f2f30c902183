"""Replies: answers to requests with an idempotency key, encrypted, so that they can be given
again."""

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
RUNNING_SECONDS: Final = 180  # longer than any request takes; then its process is taken for dead
ENCRYPTED_AT: Final = 1  # where the encrypted answer begins
_RUNNING = b"r"
_ANSWERED = b"s"
_MARK = slice(1, 33)


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """An answer: what is kept of it."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A request under way: where its answer goes, and the mark that keeps its place."""

    key: Key
    owner: str
    digest: bytes
    mark: bytes


class _Answered(msgspec.Struct, frozen=True, kw_only=True):
    """An answer and the digest of the request that had it."""

    digest: bytes
    reply: Reply


def is_answer(stored: bytes) -> bool:
    """Whether there is an answer in what is stored, not a request that is still running."""
    return stored[:ENCRYPTED_AT] == _ANSWERED


_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(_Answered).decode


class SettleReply(Script[None]):
    """Keeps the answer to a request with an idempotency key, or forgets the request if there is no
    answer; nothing if another request has taken its place."""

    reply: Key
    mark: bytes
    answer: bytes | None
    kept_seconds: int = KEPT_SECONDS


class Replies:
    """What is stored begins with `r`, a mark of the request and a random one while it is running,
    or with `s` and the encrypted answer. What was asked may hold secrets, so neither shows it."""

    def __init__(self, redis: Redis, encryptor: Encryptor) -> None:
        self._redis = redis
        self._encryptor = encryptor

    async def begin(self, actor: str, idempotency_key: str, request: bytes) -> Running | Reply:
        """Takes the place of a request of this actor, or gives the answer it had before.

        `request` is everything that makes two requests the same. Raises RequestRunningError
        while the first is under way, IdempotencyMismatchError if that was another request.
        """
        name = hashlib.sha256(f"{actor} {idempotency_key}".encode()).hexdigest()
        digest = hashlib.sha256(request).digest()
        running = Running(
            key=keys.reply(name),
            owner=owner_of_reply(name),
            digest=digest,
            mark=_RUNNING + self._encryptor.mark(digest) + new_token().encode(),
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
        answered = _encode(_Answered(digest=running.digest, reply=reply))
        encrypted = self._encryptor.encrypt(answered, running.owner)
        answer = _ANSWERED + encrypted
        await run(self._redis, SettleReply(reply=running.key, mark=running.mark, answer=answer))

    async def forget(self, running: Running) -> None:
        """Lets the request be made again."""
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
