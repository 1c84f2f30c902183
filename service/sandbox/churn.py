"""Automatic changes at a rate."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Final

from service.sandbox.catalogue import Catalogue
from service.sandbox.changes import ChangeRequest, CourseOperation
from service.sandbox.clock import Clock

_WEIGHTS: Final[dict[CourseOperation, int]] = {
    "edit": 60,
    "provider": 8,
    "skill": 8,
    "revision_add": 4,
    "create": 8,
    "delete": 8,
    "restore": 4,
}
_LEAST_LIVE_SHARE: Final = 0.5
"""No deletion if fewer than this share of all courses is live."""
_TICK: Final = 0.05
"""Seconds between checks for due changes."""


def next_change(chance: random.Random, catalogue: Catalogue) -> ChangeRequest:
    """One change that fits the catalogue, mostly an edit."""
    op = chance.choices(list(_WEIGHTS), weights=list(_WEIGHTS.values()))[0]
    if catalogue.live == 0:
        op = "create"
    scarce = catalogue.live <= catalogue.size * _LEAST_LIVE_SHARE
    complete = catalogue.live == catalogue.size
    if (op == "delete" and scarce) or (op == "restore" and complete):
        op = "edit"
    return ChangeRequest(op=op)


class Churn:
    """Changes random courses of random integrations, `per_second` of them in all."""

    def __init__(
        self,
        catalogues: Mapping[str, Catalogue],
        clock: Clock,
        *,
        per_second: float,
        seed: int,
    ) -> None:
        self._catalogues = catalogues
        self._clock = clock
        self._random = random.Random(seed)
        self._wanted = asyncio.Event()
        self._per_second = 0.0
        self.set_rate(per_second)

    @property
    def per_second(self) -> float:
        """The rate; 0 means no automatic changes."""
        return self._per_second

    def set_rate(self, per_second: float) -> None:
        """Change the rate from now on; 0 stops."""
        self._per_second = per_second
        if per_second > 0:
            self._wanted.set()
        else:
            self._wanted.clear()

    def make(self, count: int) -> None:
        """Make `count` changes now."""
        catalogues = list(self._catalogues.values())
        for _ in range(count if catalogues else 0):
            catalogue = self._random.choice(catalogues)
            change = next_change(self._random, catalogue)
            catalogue.apply([change], self._clock.now(), self._clock.skew)

    async def run(self) -> None:
        """Make due changes, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wanted.wait()
            due, last = 0.0, loop.time()
            while self._wanted.is_set():
                await asyncio.sleep(_TICK)
                now = loop.time()
                due, last = due + (now - last) * self._per_second, now
                whole = int(due)
                due -= whole
                self.make(whole)
