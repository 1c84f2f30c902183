"""The event loop of a worker process, in its own thread, and access to it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar

import uvloop
from rq.timeouts import BaseDeathPenalty, JobTimeoutException

from service.domain.errors import CoursewireError, StartError
from service.logs import get_logger
from workers.context import JobContext

CANCEL_SECONDS: Final = 10.0  # for a cancelled coroutine to end
CLOSE_SECONDS: Final = 5.0  # for the services to close

_log = get_logger("worker")

Context = TypeVar("Context")
Result = TypeVar("Result")
Params = ParamSpec("Params")


class WorkStoppedError(CoursewireError):
    """The worker stopped before the work was done; the schedule repeats it."""


class LoopThread(Generic[Context]):
    """An event loop in its own thread, with a context that is opened in it. `open_context` is
    entered on the loop with the event that is set when the process stops."""

    def __init__(
        self, open_context: Callable[[asyncio.Event], AbstractAsyncContextManager[Context]]
    ) -> None:
        self._open_context = open_context
        self._opened: concurrent.futures.Future[Context] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._main, name="event-loop", daemon=True)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._lingering: set[asyncio.Task[Any]] = set()
        self._cancelling = False
        self._loop: asyncio.AbstractEventLoop
        self._draining: asyncio.Event
        self._ending: asyncio.Event

    def start(self) -> None:
        """Starts the loop and opens the context; raises the errors of opening it."""
        self._thread.start()
        self._opened.result()

    @property
    def context(self) -> Context:
        """The opened context."""
        return self._opened.result()

    @property
    def alive(self) -> bool:
        """Whether the loop runs."""
        return self._thread.is_alive()

    @property
    def busy(self) -> bool:
        """Whether any task runs without a job that waits for it."""
        return bool(self._lingering)

    def run(self, coroutine: Coroutine[Any, Any, Result], timeout: float | None = None) -> Result:
        """Runs a coroutine on the loop and waits for it; called from any other thread.

        Raises JobTimeoutException after `timeout` seconds, once the coroutine, and only it,
        has been cancelled and has ended; WorkStoppedError if `cancel_all` ended it.
        """
        bounded = self._bounded(coroutine, timeout)
        try:
            future = asyncio.run_coroutine_threadsafe(bounded, self._loop)
        except RuntimeError:  # the loop is closed
            bounded.close()
            coroutine.close()
            raise WorkStoppedError from None
        try:
            return future.result(None if timeout is None else timeout + CANCEL_SECONDS)
        except concurrent.futures.CancelledError:
            raise WorkStoppedError from None
        except TimeoutError:
            if future.done():  # the coroutine's own
                raise
            future.cancel()
            _log.error("cancelled job does not end", timeout_seconds=timeout)
            raise JobTimeoutException(_timed_out(timeout)) from None

    def begin_draining(self) -> None:
        """Signals running work to return unfinished parts."""
        self._call(self._draining.set)

    def cancel_all(self) -> None:
        """Cancels every present and later coroutine."""
        self._cancelling = True
        self._call(self._cancel_tasks)

    def close(self) -> bool:
        """Ends running tasks, closes the context and ends the loop; returns whether it ended."""
        self._call(self._ending.set)
        self._thread.join(CLOSE_SECONDS)
        return not self._thread.is_alive()

    async def _bounded(
        self, coroutine: Coroutine[Any, Any, Result], seconds: float | None
    ) -> Result:
        if self._cancelling:
            coroutine.close()
            raise WorkStoppedError
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine always runs in one
        self._tasks.add(task)
        try:
            async with asyncio.timeout(seconds) as limit:
                return await coroutine
        except TimeoutError:
            if limit.expired():
                raise JobTimeoutException(_timed_out(seconds)) from None
            raise
        finally:
            self._tasks.discard(task)

    def _cancel_tasks(self) -> None:
        for task in self._tasks | self._lingering:
            task.cancel()

    def _call(self, function: Callable[[], object]) -> None:
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(function)

    def _main(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - an error in a thread has no caller
            if self._opened.done():
                _log.critical("event loop failed", exc_info=error)
            else:
                self._opened.set_exception(error)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._draining = asyncio.Event()
        self._ending = asyncio.Event()
        async with self._open_context(self._draining) as context:
            if isinstance(context, JobContext):
                self._lingering = context.lingering
            self._opened.set_result(context)
            await self._ending.wait()
            self._cancelling = True
            self._cancel_tasks()
            if left := self._tasks | self._lingering:
                await asyncio.wait(left, timeout=CLOSE_SECONDS / 2)


def _timed_out(seconds: float | None) -> str:
    return f"the job took longer than its {seconds} seconds"


# --- the process's loop, for jobs that RQ calls by name ---------------------------------------

installed: list[LoopThread[Any]] = []
allowance: ContextVar[float | None] = ContextVar("allowance", default=None)


class CarriedTimeout(BaseDeathPenalty):
    """Passes RQ's timeout on to `perform`, which cancels the coroutine; interrupts no thread."""

    def __init__(
        self,
        timeout: float,
        exception: type[BaseException] = JobTimeoutException,
        **_details: object,
    ) -> None:
        super().__init__(timeout, exception)  # type: ignore[no-untyped-call]  # RQ's
        self._seconds = float(timeout) if timeout > 0 else None  # RQ's -1 means none

    def __enter__(self) -> None:
        self.setup_death_penalty()

    def __exit__(self, *_raised: object) -> None:
        self.cancel_death_penalty()

    def setup_death_penalty(self) -> None:
        """Stores the timeout for `perform`."""
        self._token = allowance.set(self._seconds)

    def cancel_death_penalty(self) -> None:
        """Removes the timeout."""
        allowance.reset(self._token)


def install(loop: LoopThread[Any]) -> None:
    """Makes `loop` the loop for jobs of this process."""
    installed[:] = [loop]


def current() -> LoopThread[Any]:
    """The loop of this process. Raises StartError if there is none."""
    if not installed:
        raise StartError(
            "this job needs the event loop of Coursewire's own worker: "
            "run `coursewire worker` instead of `rq worker`"
        )
    return installed[0]


def perform(
    work: Callable[Concatenate[Any, Params], Coroutine[Any, Any, Result]],
    *args: Params.args,
    **kwargs: Params.kwargs,
) -> Result:
    """Runs `work(context, ...)` on the process's loop within the timeout of the RQ job at hand.

    Raises StartError outside Coursewire's worker, and the errors of `LoopThread.run`.
    """
    loop = current()
    return loop.run(work(loop.context, *args, **kwargs), allowance.get())
