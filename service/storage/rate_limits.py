"""The wait that an upstream asked for, shared by all integrations of a credential."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.storage import keys

if TYPE_CHECKING:
    from redis.asyncio import Redis

MAX_WAIT_SECONDS = 3600.0


class RateLimits:
    """Holds a credential's requests back for as long as the upstream said."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def hold(self, credential_id: str, seconds: float) -> None:
        """Nobody is to use the credential for `seconds`, at most an hour."""
        milliseconds = max(1, int(min(seconds, MAX_WAIT_SECONDS) * 1000))
        await self._redis.set(keys.rate(credential_id), b"1", px=milliseconds)

    async def held_ms(self, credential_id: str) -> int:
        """Milliseconds for which the credential is held back still, 0 if it is free."""
        return max(0, int(await self._redis.pttl(keys.rate(credential_id))))
