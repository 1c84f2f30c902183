"""Decides when a subscription's rate allows the next attempt: a token bucket."""

from __future__ import annotations

import msgspec


class Bucket(msgspec.Struct, frozen=True):
    """The tokens in the bucket at `at` (epoch ms). It holds one second's worth, at least one."""

    tokens: float
    at: int


def full(rate: float, now: int) -> Bucket:
    """The bucket of an outbox that has not sent lately."""
    return Bucket(max(1.0, rate), now)


def take(bucket: Bucket, rate: float, now: int) -> tuple[Bucket, int]:
    """Takes one attempt's token at `rate` per second. Returns the bucket and 0, or the unchanged
    bucket and the ms until a token is available. A clock that was set back neither adds nor removes
    tokens.
    """
    elapsed = max(0, now - bucket.at)
    tokens = min(max(1.0, rate), bucket.tokens + elapsed * rate / 1000)
    if tokens >= 1:
        return Bucket(tokens - 1, now), 0
    return bucket, max(1, int((1 - tokens) * 1000 / rate) + 1)
