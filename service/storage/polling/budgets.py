"""One budget of upstream requests per credential, shared by all workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from service.domain.polling.integration import PollKind
from service.storage.redis import keys
from service.storage.redis.keys import Key
from service.storage.redis.scripts import Script, run

if TYPE_CHECKING:
    from redis.asyncio import Redis

DEFAULT_HOLD_SECONDS = 5.0  # if an upstream limits us without stating a wait
MAX_HOLD_SECONDS = 3600.0  # of a wait that an upstream requests
_SPENT = 1  # until the next slot, if a slot's turn was in vain


class PlaceInLine(msgspec.Struct, frozen=True):
    """A slot in the queue of waiting polls: ms until its turn, and its time (epoch ms by the clock
    of Redis)."""

    wait_ms: int
    at: int


class SpendRequest(Script[PlaceInLine]):
    """Takes one request from a credential's budget, or a slot in the queue; the wait is 0 if the
    request may be sent. `slot` is the caller's earlier slot, 0 if none. A caller that does not
    `wait` gets no slot."""

    budget: Key
    kind: PollKind
    slot: int
    waits: bool = True


class NoteRateLimit(Script[None]):
    """Stores a response's report of a credential's rate limit: the time in which nothing may be
    sent (0 if not stated), the limit, the remaining requests and the end of the window."""

    budget: Key
    hold_ms: int = 0
    limit: int | None = None
    remaining: int | None = None
    ends_ms: int | None = None


class Budgets:
    """Spends a credential's requests as the upstream allows them.

    The upstream's reported rate limit is kept until its window ends; the next window is assumed to
    be equal until its first response. If no requests are left, or the upstream requested a wait,
    polls get slots in a queue, a request's share of the window apart, in the order of their
    arrival. A waiting poll frees its worker and returns at its turn. If no requests are left then,
    it is among the first of the next window. Full polls leave a quarter of each window to deltas,
    and deltas overtake full polls in the queue.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def spend(self, credential_id: str, kind: PollKind, slot: int) -> PlaceInLine | None:
        """Takes one request; None if it may be sent now. `slot` is the caller's earlier slot, 0 for
        a newcomer."""
        spend = SpendRequest(budget=keys.budget(credential_id), kind=kind, slot=slot)
        given = await run(self._redis, spend)
        return given if given.wait_ms else None

    async def spend_now(self, credential_id: str) -> int:
        """Takes one request for a caller outside the queue, with the limits of a full poll; 0 if it
        may be sent now, otherwise the ms until a request is available."""
        spend = SpendRequest(budget=keys.budget(credential_id), kind="full", slot=0, waits=False)
        return (await run(self._redis, spend)).wait_ms

    async def note(
        self,
        credential_id: str,
        *,
        limit: int | None,
        remaining: int | None,
        reset_seconds: float | None,
    ) -> None:
        """Stores the rate limit that a response reports, if it is complete and plausible."""
        if remaining is None or reset_seconds is None or reset_seconds > MAX_HOLD_SECONDS:
            return
        note = NoteRateLimit(
            budget=keys.budget(credential_id),
            limit=limit,
            remaining=remaining,
            ends_ms=int(reset_seconds * 1000),
        )
        await run(self._redis, note)

    async def hold(self, credential_id: str, kind: PollKind, seconds: float) -> PlaceInLine:
        """Pauses the credential for `seconds`, at most an hour; returns the caller's slot."""
        hold_ms = max(1, int(min(seconds, MAX_HOLD_SECONDS) * 1000))
        await run(self._redis, NoteRateLimit(budget=keys.budget(credential_id), hold_ms=hold_ms))
        return await self.spend(credential_id, kind, _SPENT) or PlaceInLine(hold_ms, _SPENT)
