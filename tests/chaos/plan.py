"""What is done to whom and when, decided by a seed alone.

Hostile peers have a sequence of steps of their own beside the others.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from tests.chaos.answers import HOSTILE as ANSWERS
from tests.chaos.upstream import KINDS

MEAN_PAUSE: Final = 2.5  # seconds between steps
HOSTILE_PAUSE: Final = 1.5  # seconds between those of hostile peers
CUT_AFTER: Final = 12.0  # seconds from the start, so that there is something to lose


class Step(msgspec.Struct, frozen=True):
    """`do` to `target` at `at` seconds; what `amount` means depends on what is done."""

    at: float
    do: str
    target: str = ""
    amount: float = 0.0

    def __str__(self) -> str:
        amount = f" {self.amount:g}" if self.amount else ""
        return f"{self.at:6.1f} s  {self.do} {self.target}{amount}"


# What may be done, how often beside the others, and between which amounts.
_ACTIONS: Final[dict[str, tuple[int, float, float]]] = {
    "kill worker": (20, 0, 3),  # and start it again after so many seconds
    "kill api": (6, 0, 3),
    "kill scheduler": (5, 0, 5),
    "kill valkey": (6, 0, 3),
    "cut valkey": (8, 0.5, 4),  # so many seconds of the append-only file are lost
    "stop worker": (12, 5, 30),  # SIGSTOP, mostly past the leases, and SIGCONT
    "stop scheduler": (4, 2, 10),
    "stop api": (4, 1, 8),
    "stop valkey": (4, 0.5, 4),
    "end worker": (8, 0, 1),  # SIGTERM
    "skew worker": (8, -120, 120),  # kill it, and start it with a clock so far off
    "skew sandbox": (4, -120, 120),
    "fault sandbox": (30, 1, 3),
    "silence receiver": (8, 3, 25),
    "rotate secret": (4, 0, 0),
    "replay all": (3, 0, 0),
}

# How many of the answers that come next are struck. The target's rest of a division by the number
# of kinds is which kind it is; each has its turn.
HOSTILE: Final[dict[str, tuple[int, float, float]]] = {
    "hostile upstream": (1, 1, 4),
    "hostile receiver": (1, 5, 20),
}

# Each without a word on how often it strikes, which is the step's amount. What hides records
# strikes polls alone: an answer to ids from which only the one asked for is missing is evidence.
FAULTS: Final = (
    {"kind": "error", "code": "PLATFORM.UNKNOWN_ERROR"},
    {"kind": "error", "code": "PLATFORM.RATE_LIMIT_EXCEEDED", "retry_after": 1},
    {"kind": "error", "code": "PLATFORM.CONCURRENCY_LIMIT_EXCEEDED"},
    {"kind": "error", "code": "PLATFORM.INPUT_INVALID", "on": "later"},
    {"kind": "html", "status": 502},
    {"kind": "delay", "seconds": 2},
    {"kind": "drop", "after": 0.7},
    {"kind": "truncate", "after": 0.5},
    {"kind": "empty", "on": "walk"},
    {"kind": "end_early", "on": "walk"},
    {"kind": "shift", "by": 7, "on": "later"},
    {"kind": "shift", "by": -7, "on": "later"},
    {"kind": "repeat_cursor", "on": "later"},
    {"kind": "vanish", "share": 0.05, "on": "walk"},
    {"kind": "wrong_types", "share": 0.05, "path": "revisions"},
    {"kind": "wrong_types", "where": "page"},
    {"kind": "drip", "bytes_per_second": 400_000},
)  # fmt: skip


def plan(seed: int, seconds: float, *, only: tuple[str, ...] = ()) -> list[Step]:
    """The steps of a run; of the actions `only` these, if any are named."""
    usual = _steps(random.Random(f"plan {seed}"), _chosen(_ACTIONS, only), seconds, MEAN_PAUSE)
    hostile = _steps(random.Random(f"peers {seed}"), _chosen(HOSTILE, only), seconds, HOSTILE_PAUSE)
    return sorted(usual + hostile, key=lambda step: step.at)


def named(word: str) -> tuple[str, ...]:
    """The actions whose names hold a word."""
    return tuple(name for name in (*_ACTIONS, *HOSTILE) if word in name)


def has_hostile(only: tuple[str, ...]) -> bool:
    """Whether peers are hostile in a run of `only` these actions."""
    return bool(_chosen(HOSTILE, only))


_Actions = Mapping[str, tuple[int, float, float]]


def _chosen(actions: _Actions, only: tuple[str, ...]) -> _Actions:
    return {name: actions[name] for name in actions if not only or name in only}


def _steps(chance: random.Random, actions: _Actions, seconds: float, pause: float) -> list[Step]:
    if not actions:
        return []
    weights = [weight for weight, _, _ in actions.values()]
    decks = {"hostile upstream": _deck(chance, len(KINDS)),
             "hostile receiver": _deck(chance, len(ANSWERS))}  # fmt: skip
    steps = []
    at = pause
    while at < seconds:
        do, (_, least, most) = chance.choices(list(actions.items()), weights)[0]
        amount = round(chance.uniform(least, most), 1)
        if do == "fault sandbox" or do in HOSTILE:
            amount = float(round(amount))
        if do != "cut valkey" or at > CUT_AFTER:
            target = next(decks[do]) if do in decks else _target(chance, do)
            steps.append(Step(round(at, 1), do, str(target), amount))
        at += min(3 * pause, chance.expovariate(1 / pause))
    return steps


def _deck(chance: random.Random, kinds: int) -> Iterator[int]:
    """Targets that take all kinds in turns, shuffled anew each time."""
    while True:
        order = list(range(kinds))
        chance.shuffle(order)
        for kind in order:
            yield kind + kinds * chance.randrange(1_000)


def _target(chance: random.Random, do: str) -> int:
    """Which of several; whoever carries the step out takes the rest of a division by them."""
    if do == "fault sandbox":
        return chance.randrange(len(FAULTS))
    return chance.randrange(1_000)
