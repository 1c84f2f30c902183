"""Decides when a worker's turn of a poll ends before the poll."""

from __future__ import annotations

import asyncio
import time

from service.domain.polling.integration import Problem
from service.storage.redis.memory import MEMORY_SHARE, MEMORY_WAIT_MS, Memory
from service.storage.scheduling.pause import Control

TURN_SECONDS = 20.0  # after which a poll is returned to the schedule, to be resumed
MEMORY_PROBLEM = "RedisMemory"


class TurnOverError(Exception):
    """The poll continues in another turn, in `wait_ms`. `slot` is its slot in the queue for the
    credential's budget, 0 if none; `reason` explains the wait and `problem` is the problem that
    blocks the poll, if any."""

    def __init__(
        self,
        outcome: str = "yielded",
        *,
        wait_ms: int = 0,
        slot: int = 0,
        reason: str | None = None,
        problem: Problem | None = None,
    ) -> None:
        super().__init__(reason or outcome)
        self.outcome = outcome
        self.wait_ms = wait_ms
        self.slot = slot
        self.reason = reason
        self.problem = problem


class Turn:
    """The time limit of a turn."""

    def __init__(self, control: Control, memory: Memory, draining: asyncio.Event) -> None:
        self._control = control
        self._memory = memory
        self._draining = draining
        self._ends = time.monotonic() + TURN_SECONDS
        self._steps = 0

    async def check(self, now_ms: int) -> None:
        """Called before each step. Raises TurnOverError if the turn is over, polling is paused, or
        the server's memory nearly full.

        Unless it is blocked, each turn makes at least one step, however long that takes.
        """
        late = time.monotonic() >= self._ends and self._steps > 0
        if self._draining.is_set() or late:
            raise TurnOverError
        if await self._control.is_paused("polling"):
            raise TurnOverError("paused", reason="polling is paused")
        await self.check_memory(now_ms)
        self._steps += 1

    async def may_go_on(self, now_ms: int) -> bool:
        """Whether `check` allows another step now. A step that it allows counts as made."""
        try:
            await self.check(now_ms)
        except TurnOverError:
            return False
        return True

    async def check_memory(self, now_ms: int) -> None:
        """Raises TurnOverError if the server's memory is nearly full."""
        share = await self._memory.used_share()
        if share > MEMORY_SHARE:
            reason = (
                f"Redis uses {share:.0%} of its memory limit; polls wait until it is below "
                f"{MEMORY_SHARE:.0%}, deliveries continue"
            )
            problem = Problem(code=MEMORY_PROBLEM, message=reason, since=now_ms, attention=False)
            raise TurnOverError("waiting", wait_ms=MEMORY_WAIT_MS, reason=reason, problem=problem)
