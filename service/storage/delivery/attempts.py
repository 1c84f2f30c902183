"""Records of attempts: their stored form, and reading them."""

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
    """One HTTP POST of a delivery and its response. Times are epoch ms. `outcome` is the outcome's
    class; `excerpt` the beginning of the response as text, which is stored `encrypted` (base64),
    because a response may repeat anything that was sent; `next_attempt_at` is None for the last
    attempt; an attempt that is not `counted` failed because of our own network and does not count
    as a retry; `replay` means that it belongs to a replay.
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
        """The record of an attempt with its `outcome`."""
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
    """The excerpt without a character that may be cut off at its end."""
    return getincrementaldecoder("utf-8")("replace").decode(excerpt)


_decode = msgspec.json.Decoder(Attempt).decode
_encode = msgspec.json.Encoder().encode


class Attempts:
    """Reads attempt records; only the recording script writes them."""

    def __init__(self, redis: Redis, encryptor: Encryptor) -> None:
        self._redis = redis
        self._encryptor = encryptor

    def encode(self, subscription_id: str, attempt: Attempt) -> bytes:
        """An attempt in its stored form."""
        if attempt.excerpt:
            owner = owner_in_subscription(subscription_id, "attempts")
            encrypted = self._encryptor.encrypt(attempt.excerpt.encode(), owner)
            attempt = msgspec.structs.replace(
                attempt, excerpt="", encrypted=base64.b64encode(encrypted).decode()
            )
        return _encode(attempt)

    def decode(self, records: Sequence[bytes]) -> list[Attempt]:
        """Stored attempts, the first one first, with encrypted excerpts."""
        return sorted(map(_decode, records), key=lambda one: (one.at, one.number))

    def decrypted(self, subscription_id: str, attempt: Attempt) -> Attempt:
        """An attempt with its excerpt, if the key that encrypted the excerpt still exists."""
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
        """The time from which all attempts are on record, epoch ms; None: all that ever were."""
        try:
            about = await self._redis.xinfo_stream(keys.attempts(subscription_id))
        except ResponseError:  # there was no attempt
            return None
        first = about["first-entry"]
        if first is None:
            return position_ms(about["last-generated-id"].decode()) + 1
        if about.get("entries-added") == about["length"]:
            return None
        return position_ms(first[0].decode())

    async def delivered(self, subscription_id: str, first: str, last: str) -> set[str]:
        """The log positions from `first` to `last` that a recorded attempt delivered."""
        order = keys.attempts_order(subscription_id)
        return {*await sorted_positions(self._redis, order, first, last, prefix="S")}
