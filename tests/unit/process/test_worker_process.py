from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import asynccontextmanager

import pytest
from rq.timeouts import JobTimeoutException

from service.domain.errors import CoursewireError, StartError
from workers.rq import event_loop as process
from workers.rq import jobs
from workers.rq.event_loop import CarriedTimeout, LoopThread, WorkStoppedError


@asynccontextmanager
async def opened(draining: asyncio.Event):
    yield draining


@pytest.fixture
def loop() -> Iterator[LoopThread[asyncio.Event]]:
    loop = LoopThread(opened)
    loop.start()
    yield loop
    assert loop.close()


def in_thread(function, *args) -> tuple[threading.Thread, list[object]]:
    outcome: list[object] = []

    def call() -> None:
        try:
            outcome.append(function(*args))
        except CoursewireError as error:
            outcome.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    return thread, outcome


async def answer(value: int) -> int:
    return value


async def forever(started: threading.Event) -> None:
    started.set()
    await asyncio.Event().wait()


def test_the_result_of_a_coroutine_comes_back(loop):
    assert loop.run(answer(42)) == 42


def test_an_error_of_a_coroutine_comes_back(loop):
    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        loop.run(fail(), 10)


def test_a_timeout_is_raised_once_the_coroutine_has_ended(loop):
    ended = threading.Event()

    async def slow_to_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            ended.set()

    with pytest.raises(JobTimeoutException):
        loop.run(slow_to_end(), 0.01)
    assert ended.is_set()


def test_a_timeout_of_the_coroutines_own_is_not_the_jobs(loop):
    async def own() -> None:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        loop.run(own(), 10)


def test_a_coroutine_that_does_not_end_keeps_no_thread(loop, monkeypatch):
    monkeypatch.setattr(process, "CANCEL_SECONDS", 0.05)
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    with pytest.raises(JobTimeoutException):
        loop.run(stubborn(), 0.01)

    async def let_go() -> None:
        release.set()

    loop.run(let_go())


def test_cancel_all_ends_what_runs_and_refuses_what_comes(loop):
    started = threading.Event()
    thread, outcome = in_thread(loop.run, forever(started))
    assert started.wait(5)
    loop.cancel_all()
    thread.join(5)
    assert isinstance(outcome[0], WorkStoppedError)
    with pytest.raises(WorkStoppedError):
        loop.run(answer(1))


def test_nothing_runs_on_a_closed_loop():
    loop = LoopThread(opened)
    loop.start()
    assert loop.close()
    with pytest.raises(WorkStoppedError):
        loop.run(answer(1))
    loop.begin_draining()  # harmless


def test_draining_is_told_to_what_runs(loop):
    async def wait(draining: asyncio.Event) -> bool:
        return await draining.wait()

    thread, outcome = in_thread(loop.run, wait(loop.context))
    loop.begin_draining()
    thread.join(5)
    assert outcome == [True]


def test_what_opening_raises_is_raised_at_the_start():
    @asynccontextmanager
    async def refused(_draining: asyncio.Event):
        raise StartError("no Redis")
        yield

    with pytest.raises(StartError, match="no Redis"):
        LoopThread(refused).start()


def test_a_job_runs_with_the_context_within_rqs_timeout(loop, monkeypatch):
    monkeypatch.setattr(process, "installed", [loop])

    async def work(context: asyncio.Event, started: threading.Event) -> None:
        assert context is loop.context
        await forever(started)

    started = threading.Event()
    allowed = CarriedTimeout(0.02, JobTimeoutException, job_id="job")
    with pytest.raises(JobTimeoutException), allowed:
        process.perform(work, started)
    assert started.is_set()
    assert process.allowance.get() is None


def test_rqs_endless_timeout_is_none():
    with CarriedTimeout(-1):
        assert process.allowance.get() is None


@pytest.mark.parametrize(
    ("job", "args"), [(jobs.poll, ([["int_a", 1]],)), (jobs.deliver, ([],)), (jobs.maintain, ())]
)
def test_a_job_outside_the_worker_says_what_to_start_instead(job, args, monkeypatch):
    monkeypatch.setattr(process, "installed", [])
    with pytest.raises(StartError, match="coursewire worker"):
        job(*args)


def test_what_goes_on_without_its_job_keeps_the_process_until_it_ends():
    release = threading.Event()

    async def linger(context: process.JobContext) -> None:
        task = asyncio.create_task(asyncio.to_thread(release.wait))
        context.lingering.add(task)
        task.add_done_callback(context.lingering.discard)

    @asynccontextmanager
    async def opened_for_jobs(draining: asyncio.Event):
        yield process.JobContext(None, None, draining)

    loop = LoopThread(opened_for_jobs)
    loop.start()
    loop.run(linger(loop.context))
    assert loop.busy
    release.set()
    while loop.busy:
        loop.run(asyncio.sleep(0))
    assert loop.close()


def test_what_lingers_is_cancelled_with_the_jobs():
    ended = threading.Event()

    async def linger(context: process.JobContext) -> None:
        async def forever() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        task = asyncio.create_task(forever())
        context.lingering.add(task)
        task.add_done_callback(context.lingering.discard)

    @asynccontextmanager
    async def opened_for_jobs(draining: asyncio.Event):
        yield process.JobContext(None, None, draining)

    loop = LoopThread(opened_for_jobs)
    loop.start()
    loop.run(linger(loop.context))
    loop.cancel_all()
    assert ended.wait(5)
    assert loop.close()
