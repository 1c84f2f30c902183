"""Records of attempts: how they are written, and what they tell of the past."""

from __future__ import annotations

import base64
from codecs import getincrementaldecoder
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
from redis.exceptions import ResponseError

from service.domain.delivery.outcome import Outcome
from service.domain.errors import DecryptionError
from service.domain.events.identifiers import position_ms
from service.storage.redis import keys
from service.storage.redis.sorted_positions import sorted_positions
from service.storage.security.encryption import Encryptor, owner_in_subscription

if TYPE_CHECKING:
    from redis.asyncio import Redis


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
            excerpt=_text(outcome.excerpt) if outcome.excerpt else "",
            next_attempt_at=next_attempt_at,
            counted=counted,
            replay=replay,
        )


def _text(excerpt: bytes) -> str:
    """The excerpt without the character within which it may end."""
    return getincrementaldecoder("utf-8")("replace").decode(excerpt)


_decode = msgspec.json.Decoder(Attempt).decode
_encode = msgspec.json.Encoder().encode


class Attempts:
    """Reads attempt records; only the recording script writes them."""

    def __init__(self, redis: Redis, encryptor: Encryptor) -> None:
        self._redis = redis
        self._encryptor = encryptor

    def encode(self, subscription_id: str, attempt: Attempt) -> bytes:
        """An attempt as it is recorded."""
        if attempt.excerpt:
            owner = owner_in_subscription(subscription_id, "attempts")
            encrypted = self._encryptor.encrypt(attempt.excerpt.encode(), owner)
            attempt = msgspec.structs.replace(
                attempt, excerpt="", encrypted=base64.b64encode(encrypted).decode()
            )
        return _encode(attempt)

    def decode(self, records: Sequence[bytes]) -> list[Attempt]:
        """Attempts as they are recorded, the first one first, their excerpts encrypted."""
        return sorted(map(_decode, records), key=lambda one: (one.at, one.number))

    def decrypted(self, subscription_id: str, attempt: Attempt) -> Attempt:
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

    async def delivered(self, subscription_id: str, first: str, last: str) -> set[str]:
        """The log positions from `first` to `last` that an attempt on record delivered."""
        order = keys.attempts_order(subscription_id)
        return {*await sorted_positions(self._redis, order, first, last, prefix="S")}
