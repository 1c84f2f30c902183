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

DEFAULT_HOLD_SECONDS = 5.0  # where an upstream limits us and does not say for how long
MAX_HOLD_SECONDS = 3600.0  # of a wait that an upstream asks for
_SPENT = 1  # a slot whose turn has come, and came to nothing


class PlaceInLine(msgspec.Struct, frozen=True):
    """A slot in the line of those who wait: ms until its turn, and which moment that is (epoch
    ms by the clock of Redis)."""

    wait_ms: int
    at: int


class SpendRequest(Script[PlaceInLine]):
    """Takes one request from a credential's budget, or a slot in the line of those who wait; the
    wait is 0 if the request may be sent. `slot` is the one given before, 0 if none. Unless the
    caller `waits`, it gets no slot."""

    budget: Key
    kind: PollKind
    slot: int
    waits: bool = True


class NoteRateLimit(Script[None]):
    """Keeps what an answer said of a credential's rate limit: for how long nothing is to be sent (0
    if the answer did not say), and the limit, what remains and when the window ends."""

    budget: Key
    hold_ms: int = 0
    limit: int | None = None
    remaining: int | None = None
    ends_ms: int | None = None


class Budgets:
    """Spends a credential's requests as the upstream allows them.

    What the upstream reports of its rate limit is kept until its window ends, and the next window
    is taken for another like it until its first answer. Where nothing is left, or the upstream
    asked for a wait, polls are given slots in a line, a request's share of the window apart, in
    the order in which they came: a waiting poll frees its worker and comes back at its turn. If
    nothing is left then, it is among the first of the next window. Full polls leave a
    quarter of each window to deltas, and deltas pass a line of full polls.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def spend(self, credential_id: str, kind: PollKind, slot: int) -> PlaceInLine | None:
        """Takes one request; None if it may be sent now. `slot` is the one given before, 0
        for a newcomer."""
        spend = SpendRequest(budget=keys.budget(credential_id), kind=kind, slot=slot)
        given = await run(self._redis, spend)
        return given if given.wait_ms else None

    async def spend_now(self, credential_id: str) -> int:
        """Takes one request for somebody who does not wait in line, as a full poll would; 0 if it
        may be sent now, else the ms for which there is none."""
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
        """Keeps what an answer reports of the rate limit, if it is complete and plausible."""
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
        """Keeps the credential unused for `seconds`, at most an hour; returns the caller's slot."""
        hold_ms = max(1, int(min(seconds, MAX_HOLD_SECONDS) * 1000))
        await run(self._redis, NoteRateLimit(budget=keys.budget(credential_id), hold_ms=hold_ms))
        return await self.spend(credential_id, kind, _SPENT) or PlaceInLine(hold_ms, _SPENT)
