"""Serves queues until a signal: starts the workers and the event loop, and drains them."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from queue import Empty, SimpleQueue
from typing import Any, Final

import msgspec

from service.logs import get_logger
from service.stop_signals import SAME_REQUEST_SECONDS
from workers.rq import event_loop as process
from workers.rq.batch_worker import BatchWorker
from workers.rq.registration import DEFAULT_PACE, Pace

DRAIN_SECONDS: Final = 20.0
SETTLE_SECONDS: Final = 5.0  # for cancelled jobs to be recorded
FORCED_SETTLE_SECONDS: Final = 1.0  # the same, after a second signal

_log = get_logger("worker")


class Line(msgspec.Struct, frozen=True):
    """A queue and how many of its jobs one process runs at once."""

    queue: str
    slots: int


def serve(
    open_context: Callable[[asyncio.Event], AbstractAsyncContextManager[Any]],
    redis_url: str,
    lines: Sequence[Line],
    *,
    drain_seconds: float = DRAIN_SECONDS,
    pace: Pace = DEFAULT_PACE,
) -> int:
    """Serves the queues until SIGTERM or SIGINT; the main thread must call it. Returns the exit
    code: 0 if every job has ended and is recorded.

    At the first signal running jobs return unfinished work, and are cancelled after
    `drain_seconds`; a second one cancels them at once. `open_context` is entered on the process's
    event loop with the event for the first signal. Raises the errors of opening the context.
    """
    logging.getLogger("rq").setLevel(logging.WARNING)  # it logs every wait for a job
    received: SimpleQueue[int] = SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: received.put(number))
    loop = process.LoopThread(open_context)
    loop.start()
    process.install(loop)
    workers = [BatchWorker(line.queue, redis_url, slots=line.slots, pace=pace) for line in lines]
    for worker in workers:
        worker.start()
    _log.info("worker started", **{line.queue: line.slots for line in lines})
    crashed = not _wait_for_signal(received, loop, workers)
    recorded = _drain(received, loop, workers, drain_seconds)
    for worker in workers:
        worker.sign_off()
    closed = loop.close()
    _log.info("worker stopped", recorded=recorded, closed=closed)
    return 0 if recorded and closed and not crashed else 1


def _wait_for_signal(
    received: SimpleQueue[int], loop: process.LoopThread[Any], workers: Sequence[BatchWorker]
) -> bool:
    """Waits for the first signal; returns False if a part of the process ended by itself."""
    while loop.alive and all(worker.alive for worker in workers):
        try:
            received.get(timeout=1.0)
        except Empty:
            continue
        return True
    _log.critical("part of the worker ended unexpectedly")
    return False


def _drain(
    received: SimpleQueue[int],
    loop: process.LoopThread[Any],
    workers: Sequence[BatchWorker],
    drain_seconds: float,
) -> bool:
    """Ends all work, and cancels it after `drain_seconds` or at another signal; returns whether all
    of it ended and was recorded."""
    begun = time.monotonic()
    _log.info("worker stopping", drain_seconds=drain_seconds)
    loop.begin_draining()

    def wait(until: float, *, patient: bool) -> bool:
        while loop.busy or not all(worker.idle for worker in workers):
            for worker in workers:
                worker.stop()
            if time.monotonic() >= until:
                return False
            try:
                received.get(timeout=0.05)
            except Empty:
                continue
            if patient and time.monotonic() - begun >= SAME_REQUEST_SECONDS:
                return False
        return True

    if wait(begun + drain_seconds, patient=True):
        return True
    forced = time.monotonic() < begun + drain_seconds
    _log.warning("cancelling running jobs", forced=forced)
    loop.cancel_all()
    settled = wait(
        time.monotonic() + (FORCED_SETTLE_SECONDS if forced else SETTLE_SECONDS), patient=False
    )
    for worker in workers:
        worker.give_up()
    return settled and not forced


def leave(code: int) -> None:
    """Ends the process, including threads that no longer respond."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
