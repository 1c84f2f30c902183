"""Where processor time goes: samples of the stack, added up by function of the project."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from tests.bench import report

_INTERVAL = 0.001  # seconds of processor time; the kernel may make it one tick of its clock
_ROOT = Path(__file__).parents[2]
_OURS = tuple(f"{_ROOT / package}/" for package in ("service", "workers"))
LOOP = "event loop"
_SHOWN = 0.005  # of all time, below which a function is not worth a row


class Sampler:
    """Attributes the processor time of this process, while entered, to functions in seconds.

    `own` counts a function's own work and that of the libraries it called, and adds up to all
    of the time; `total` counts also that of the functions of ours it called. What the event
    loop does for a coroutine that waits counts as the coroutine's. For the main thread only.
    """

    def __init__(self) -> None:
        self.own: Counter[str] = Counter()
        self.total: Counter[str] = Counter()
        self._seen = 0.0

    def __enter__(self) -> Sampler:
        self._before = signal.signal(signal.SIGPROF, self._sample)
        self._seen = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, _INTERVAL, _INTERVAL)
        return self

    def __exit__(self, *_exc_info: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, self._before)

    def _sample(self, _number: int, frame: FrameType | None) -> None:
        now = time.process_time()
        spent, self._seen = now - self._seen, now
        names = [_name(each) for each in _stack(frame) if _is_ours(each)]
        names = names or _longest_wait() or [LOOP]
        self.own[names[0]] += spent
        for name in set(names):
            self.total[name] += spent


def shown(sampler: Sampler, title: str, records: int) -> dict[str, float]:
    """Prints, and returns, µs per record by function: its own work and that of libraries it
    called."""
    everything = sampler.own.total()
    report.show(
        title,
        ("function", "own µs per record", "own %", "with ours it calls"),
        [
            (
                name,
                f"{us(sampler.own[name], records)}",
                f"{100 * sampler.own[name] / everything:.1f}",
                f"{us(total, records)}",
            )
            for name, total in sampler.total.most_common()
            if total >= _SHOWN * everything
        ],
    )
    return {name: us(spent, records) for name, spent in sampler.own.most_common()}


def us(seconds: float, records: int) -> float:
    """µs per record."""
    return round(seconds / records * 1e6, 3)


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _longest_wait() -> list[str]:
    """The functions of ours, innermost first, in which the job's deepest waiting task waits."""
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:  # no loop runs
        return []
    waits = [
        [_name(frame) for frame in _awaited(task.get_coro()) if _is_ours(frame)] for task in tasks
    ]
    jobs = [names for names in waits if names and names[0].startswith("workers/")]
    return max(jobs, key=len, default=[])[::-1]


def _awaited(waiting: object) -> Iterator[FrameType]:
    """The frames of a suspended coroutine, outermost first."""
    while waiting is not None:
        for kind in ("cr", "ag", "gi"):
            frame = getattr(waiting, f"{kind}_frame", None)
            if frame is not None:
                yield frame
                break
        else:
            return
        waiting = getattr(waiting, "gi_yieldfrom" if kind == "gi" else f"{kind}_await", None)


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_OURS)


def _name(frame: FrameType) -> str:
    path = Path(frame.f_code.co_filename).relative_to(_ROOT)
    return f"{path} {frame.f_code.co_qualname.replace('.<locals>', '')}"
