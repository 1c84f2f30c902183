"""The worker process: RQ workers that run many jobs at once, and the process around them."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import resource
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import Any, Final

import msgspec
from redis import Redis
from redis.client import Pipeline
from redis.connection import AbstractConnection
from redis.exceptions import (
    ConnectionError,  # noqa: A004 - redis's own name
    OutOfMemoryError,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004 - redis's own name
)
from rq import Queue, worker_registration
from rq.exceptions import DequeueTimeout, NoSuchJobError
from rq.executions import Execution
from rq.job import Job
from rq.registry import clean_registries
from rq.results import Result
from rq.serializers import JSONSerializer
from rq.suspension import WORKERS_SUSPENDED
from rq.utils import utcformat
from rq.worker import BaseWorker, WorkerStatus

from service.bootstrap import open_services
from service.domain.errors import CoursewireError
from service.logs import configure, get_logger, redact
from service.settings import Settings
from service.storage.redis.client import open_sync
from service.storage.redis.server_info import check_server
from workers.context import JobContext
from workers.dispatch import queues
from workers.dispatch.dispatcher import Dispatcher
from workers.rq import event_loop as process

POLL_SLOTS: Final = 4
DELIVER_SLOTS: Final = 8
MAX_FILES: Final = 16_384  # that the process asks to be allowed to open
DRAIN_SECONDS: Final = 20.0
SETTLE_SECONDS: Final = 5.0  # that cancelled jobs get to be recorded
FORCED_SETTLE_SECONDS: Final = 1.0  # the same, after a second signal
SAME_REQUEST_SECONDS: Final = 1.0  # a terminal and a supervisor may both pass on one Ctrl-C
AWAY_SECONDS: Final = 0.5  # between attempts to take a job while Redis is away
MAX_WAIT_SECONDS: Final = 5.0  # between attempts to record how a job ended; grows up to this
FAILED_SECONDS: Final = 5.0  # before the next attempt where taking a job failed otherwise

_AWAY = (ConnectionError, TimeoutError)
_WAITED_FOR = (*_AWAY, OutOfMemoryError)  # a full server takes no heartbeat and gives no job

_log = get_logger("worker")


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How often a worker does what it does beside its jobs; all in seconds.

    A worker or an execution that was not heard of for its `ttl` counts as lost; a job that it
    had begun is moved to the failed ones by the next maintenance of any worker.
    """

    dequeue: int = 5
    heartbeat: float = 10.0
    worker_ttl: int = 60
    execution_ttl: int = 75
    maintenance: int = 60


DEFAULT_PACE: Final = Pace()


class BatchWorker(BaseWorker):
    """Serves one queue with several slots, each a thread that waits for a job's coroutine.

    A slot is taken before a job is: the worker never holds a job that it cannot run. Nothing
    here needs the main thread, and Redis being away ends nothing. Commands sent to a worker
    over Redis (`rq.command`) are not listened to.
    """

    death_penalty_class = process.CarriedTimeout

    def __init__(self, queue: str, url: str, *, slots: int, pace: Pace) -> None:
        kind = queue.removeprefix("coursewire-")
        super().__init__(
            queue,
            # The process id alone is not unique among containers that share a host name.
            name=f"{socket.gethostname()}-{os.getpid()}-{kind}-{secrets.token_hex(2)}",
            connection=open_sync(url),
            serializer=JSONSerializer,
            worker_ttl=pace.worker_ttl,
            maintenance_interval=pace.maintenance,
            prepare_for_work=False,
        )
        self.hostname = socket.gethostname()
        self.pid = os.getpid()
        self._pace = pace
        self._queue: Queue = self.queues[0]
        self._dequeuing = open_sync(url, blocks_for=pace.dequeue, on_connect=self._note_client)
        self._dequeuing_client: int | None = None
        self._free = threading.Semaphore(slots)
        self._running = 0
        self._running_lock = threading.Lock()
        self._executions_lock = threading.Lock()  # held while heartbeats are sent
        self._suspension = False  # `rq suspend` is in force, as last heard
        self._suspended = False  # and is obeyed
        self._away = False
        self._registered = threading.Event()
        self._stopping = threading.Event()
        self._giving_up = threading.Event()
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=target, name=f"{kind}-{name}", daemon=True)
            for name, target in (("dequeue", self._dequeue), ("pulse", self._pulse))
        ]

    # --- what the process does with it --------------------------------------------------------

    def start(self) -> None:
        """Starts serving the queue, as soon as Redis answers."""
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """Whether its threads run, as they do until `stop`."""
        return all(thread.is_alive() for thread in self._threads)

    @property
    def idle(self) -> bool:
        """Whether it has stopped taking jobs and none is left."""
        return not self._threads[0].is_alive() and not self._running

    def stop(self) -> None:
        """Takes no more jobs; call it until `idle`, for a call may come just before a wait."""
        self._stopping.set()
        self._registered.set()
        self._free.release()  # whoever waits for a slot
        client = self._dequeuing_client
        if client is None or self._away or not self._threads[0].is_alive():
            return
        try:
            self.connection.client_unblock(client)
        except RedisError as error:  # then the wait ends by itself
            _log.debug("waiting for jobs was not interrupted", error=str(error))

    def give_up(self) -> None:
        """Leaves what is still unrecorded to the maintenance of other workers."""
        self._giving_up.set()

    def sign_off(self) -> None:
        """Ends the heartbeats and removes the worker from Redis."""
        self._ended.set()
        self._threads[1].join(FORCED_SETTLE_SECONDS)
        try:
            if self._away:
                raise ConnectionError("Redis is away")
            self.register_death()  # type: ignore[no-untyped-call]  # RQ leaves it untyped
        except RedisError as error:
            _log.warning("worker not signed off", worker=self.name, error=str(error))
        self.connection.close()
        self._dequeuing.close()

    # --- what of RQ's worker does not fit many jobs in threads --------------------------------

    def _set_connection(self, connection: Redis) -> Redis:
        return connection  # its timeouts are chosen where it is opened

    def procline(self, message: str) -> None:
        """Leaves the process's title alone: it would show one of many jobs."""

    def register_birth(self) -> None:
        """Registers the worker, or again what Redis has lost of it."""
        if self.birth_date is None:
            self.birth_date = datetime.now(UTC)
        try:
            self.ip_address = str(self.connection.client_info()["addr"])
        except ResponseError:  # forbidden here; it is only for show
            self.ip_address = "unknown"
        with self.connection.pipeline() as pipeline:
            self.heartbeat(pipeline=pipeline)
            pipeline.hset(self.key, mapping=self.serialize())
            worker_registration.register(self, pipeline)
            # `rq info` shows the workers of known queues; this one may have had no job yet.
            pipeline.sadd(Queue.redis_queues_keys, self._queue.key)
            pipeline.execute()

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Says that the worker lives, and its state; always for the whole lifetime of its key."""
        self.last_heartbeat = datetime.now(UTC)
        connection = self.connection if pipeline is None else pipeline
        connection.hset(
            self.key,
            mapping={
                "last_heartbeat": utcformat(self.last_heartbeat),
                "state": self._true_state(),
            },
        )
        connection.expire(self.key, self._pace.worker_ttl)
        if self.executions:
            connection.expire(self.executions_key, self._pace.execution_ttl)

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        """How long, in seconds, an execution counts as alive after each of its heartbeats."""
        return self._pace.execution_ttl

    def set_state(self, state: str, pipeline: Pipeline | None = None) -> None:
        """Sets the state to what is true, whatever RQ wishes: never idle while jobs run."""
        with self.connection.pipeline() as own:
            super().set_state(self._true_state(), pipeline or own)
            self._keep_lifetime(pipeline or own)
            own.execute()

    def increment_failed_job_count(self, pipeline: Pipeline | None = None) -> None:
        """Counts a job that failed."""
        super().increment_failed_job_count(pipeline)
        self._keep_lifetime(self.connection if pipeline is None else pipeline)

    def increment_successful_job_count(self, pipeline: Pipeline | None = None) -> None:
        """Counts a job that succeeded."""
        super().increment_successful_job_count(pipeline)
        self._keep_lifetime(self.connection if pipeline is None else pipeline)

    def _keep_lifetime(self, connection: Redis) -> None:
        """Where Redis has lost the worker's key, what was just written brought it back without
        a lifetime; who is killed before the next heartbeat would leave it for ever."""
        connection.expire(self.key, self._pace.worker_ttl)

    def handle_execution_ended(self, job: Job, queue: Queue, heartbeat_ttl: int) -> None:
        """Notes when the job ended; a last heartbeat could bring a deleted job's key back."""
        job.ended_at = datetime.now(UTC)

    def clean_registries(self) -> None:
        """Moves jobs of lost workers out of `started`; once a minute among all workers.

        The lock goes by itself, so that a worker that dies here holds nobody up.
        """
        if self.connection.set(
            self._queue.registry_cleaning_key, self.name, nx=True, ex=self._pace.maintenance
        ):
            clean_registries(self._queue)
            worker_registration.clean_worker_registry(self._queue)
            self._queue.intermediate_queue.cleanup(self, self._queue)
        self._postpone_maintenance()

    def _postpone_maintenance(self) -> None:
        self.last_cleaned_at = datetime.now(UTC)  # type: ignore[assignment]  # RQ declares None

    def _true_state(self) -> str:
        resting = WorkerStatus.SUSPENDED if self._suspended else WorkerStatus.IDLE
        return str((WorkerStatus.BUSY if self._running else resting).value)

    # --- the pulse: one thread ----------------------------------------------------------------

    def _pulse(self) -> None:
        wait = 0.0
        while not self._ended.wait(wait):
            wait = self._pace.heartbeat
            try:
                if self.birth_date is None or self._beat():
                    self.register_birth()
                    _log.info("worker registered", worker=self.name)
                self._registered.set()
                if self._away:
                    self._away = False
                    # The other workers come back now too: let them be heard of first.
                    self._postpone_maintenance()
                    _log.info("redis is back", worker=self.name)
                if self.should_run_maintenance_tasks and not self._stopping.is_set():
                    self.clean_registries()
            except _WAITED_FOR as error:
                self._note_away(error)
                wait = min(1.0, wait)
            except Exception as error:  # noqa: BLE001 - the pulse goes on whatever happens
                _log.error("heartbeat failed", worker=self.name, exc_info=error)

    def _beat(self) -> bool:
        """Sends all heartbeats; returns whether Redis has lost the worker."""
        with self._executions_lock, self.connection.pipeline(transaction=False) as pipeline:
            self.heartbeat(pipeline=pipeline)
            registry = self._queue.started_job_registry
            for execution in list(self.executions.values()):
                execution.heartbeat(registry, self._pace.execution_ttl, pipeline)
            pipeline.exists(WORKERS_SUSPENDED)
            replies = pipeline.execute()
        self._suspension = bool(replies[-1])
        return bool(replies[0])  # fields that were not there

    def _note_away(self, error: Exception) -> None:
        if not self._away:
            self._away = True
            _log.warning("redis is away", worker=self.name, error=str(error))

    # --- taking jobs: one thread --------------------------------------------------------------

    def _dequeue(self) -> None:
        self._registered.wait()
        wait = 0.0
        while not self._stopping.wait(wait):
            wait = 0.0
            self._free.acquire()
            job = None
            try:
                if not self._stopping.is_set():
                    job = self._next_job()
            except _WAITED_FOR as error:
                self._note_away(error)
                wait = AWAY_SECONDS
            except Exception as error:  # noqa: BLE001 - no job may end the serving of a queue
                _log.error("no job taken", worker=self.name, exc_info=error)
                wait = FAILED_SECONDS
            if job is None:
                self._free.release()
            else:
                with self._running_lock:
                    self._running += 1
                threading.Thread(
                    target=self._occupy_slot, args=(job,), name=f"job-{job.id}", daemon=True
                ).start()

    def _next_job(self) -> Job | None:
        """Waits for a job, for a while. One that expired in the queue is passed over."""
        if self._suspension != self._suspended:
            self._suspended = self._suspension
            self.set_state(WorkerStatus.SUSPENDED if self._suspended else WorkerStatus.IDLE)
        if self._suspended:
            self._stopping.wait(1.0)
            self._suspension = bool(self.connection.exists(WORKERS_SUSPENDED))
            return None
        try:
            _, taken = Queue.lmove(self._dequeuing, self._queue.key, self._pace.dequeue)
        except DequeueTimeout:
            return None
        job_id = taken.decode()
        try:
            return Job.fetch(job_id, self.connection, JSONSerializer)
        except _AWAY:
            raise
        except NoSuchJobError:
            pass
        except Exception as error:  # noqa: BLE001 - what cannot be read now never will be
            _log.error("job not readable", job=job_id, exc_info=error)
        self._queue.intermediate_queue.remove(job_id)
        return None

    def _note_client(self, connection: AbstractConnection) -> None:
        connection.send_command("CLIENT", "ID")  # type: ignore[no-untyped-call]  # redis-py's
        self._dequeuing_client = int(connection.read_response())

    # --- running jobs: a thread each ----------------------------------------------------------

    def _occupy_slot(self, job: Job) -> None:
        try:
            self._run_job(job)
        except Exception as error:  # noqa: BLE001 - the slot must come free
            _log.error("job left unrecorded", job=job.id, exc_info=error)
        finally:
            self._vacate_slot()

    def _vacate_slot(self) -> None:
        try:
            with self._running_lock:  # so that no job begins between the last end and `idle`
                self._running -= 1
                if not self._running:
                    self.set_state(WorkerStatus.IDLE)
        except RedisError as error:  # the next heartbeat says it
            _log.debug("state not set", worker=self.name, error=str(error))
        finally:
            self._free.release()

    def _run_job(self, job: Job) -> None:
        try:
            execution = self.prepare_execution(job)
            self.prepare_job_execution(job, remove_from_intermediate_queue=True)
        except RedisError as error:
            # Its claim lapses and comes back; what was written of the execution expires.
            with self._executions_lock:
                for begun in list(self.executions.values()):
                    if begun.job_id == job.id:
                        del self.executions[begun.id]
            _log.warning("job not begun", job=job.id, error=str(error))
            return
        try:
            with process.CarriedTimeout(job.timeout or queues.JOB_TIMEOUT):
                job.perform()
        except Exception as error:  # noqa: BLE001 - whatever a job raises is its result
            self.handle_execution_ended(job, self._queue, 0)
            reason = str(redact(None, "", {"error": f"{type(error).__name__}: {error}"})["error"])
            if isinstance(error, process.WorkStoppedError):
                _log.warning("job stopped", job=job.id, work=job.description)
            else:
                _log.error("job failed", job=job.id, work=job.description, exc_info=error)
            self._record(job, execution, lambda: self._record_failure(job, execution, reason))
        else:
            self.handle_execution_ended(job, self._queue, 0)
            self._record(job, execution, lambda: self._record_success(job, execution))

    def _record(self, job: Job, execution: Execution, write: Callable[[], None]) -> None:
        """Records how a job ended, for as long as it takes Redis to answer."""
        wait = 0.1
        while True:
            with self._executions_lock:  # no heartbeat may bring it back
                self.executions.pop(execution.id, None)
            try:
                write()
            except _AWAY as error:
                self._note_away(error)
                self.executions[execution.id] = execution
                if self._giving_up.wait(wait):
                    raise
                wait = min(2 * wait, MAX_WAIT_SECONDS)
            except OutOfMemoryError as error:  # counting the job takes memory, erasing it none
                _log.warning("job not counted", job=job.id, error=str(error))
                write = lambda: self._erase(job, execution)  # noqa: E731 - like what was given
            except Exception as error:  # noqa: BLE001 - what RQ stumbles over must still go
                _log.error("job not recorded", job=job.id, exc_info=error)
                write = lambda: self._erase(job, execution)  # noqa: E731 - like what was given
            else:
                return

    def _record_success(self, job: Job, execution: Execution) -> None:
        """Counts the job and removes every trace of it, in one go.

        Repeating it does no harm. RQ's own way takes some 30 commands.
        """
        with self.connection.pipeline() as pipeline:
            self.increment_successful_job_count(pipeline)
            if job.started_at and job.ended_at:
                self.increment_total_working_time(job.ended_at - job.started_at, pipeline)
            self._erase(job, execution, pipeline)

    def _erase(self, job: Job, execution: Execution, pipeline: Pipeline | None = None) -> None:
        pipeline = pipeline or self.connection.pipeline()
        execution.delete(job, pipeline)
        pipeline.delete(
            job.key,
            Result.get_key(job.id),  # type: ignore[no-untyped-call]  # RQ leaves it untyped
            self._queue.intermediate_queue.get_first_seen_key(job.id),
        )
        pipeline.execute()

    def _record_failure(self, job: Job, execution: Execution, reason: str) -> None:
        """Moves the job to the failed ones. Raises RedisError if that did not succeed."""
        self.connection.ping()  # RQ only logs what goes wrong below, so be told first
        self.handle_job_failure(job, self._queue, exc_string=reason, execution=execution)
        if self.connection.zscore(self._queue.started_job_registry.key, execution.composite_key):
            raise ConnectionError("the failure was not recorded")


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
    code: 0 if all that ran has ended and is recorded.

    The first signal asks running jobs to hand back and cancels them after `drain_seconds`; a
    second one cancels them at once. `open_context` is entered on the process's event loop with
    the event that says so. Raises what opening the context raises.
    """
    logging.getLogger("rq").setLevel(logging.WARNING)  # it narrates every wait for a job
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
    _log.critical("a part of the worker ended by itself")
    return False


def _drain(
    received: SimpleQueue[int],
    loop: process.LoopThread[Any],
    workers: Sequence[BatchWorker],
    drain_seconds: float,
) -> bool:
    """Ends all work, patiently until `drain_seconds` have passed or another signal comes;
    returns whether all of it ended and was recorded."""
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
    _log.warning("worker cancels its jobs", forced=forced)
    loop.cancel_all()
    settled = wait(
        time.monotonic() + (FORCED_SETTLE_SECONDS if forced else SETTLE_SECONDS), patient=False
    )
    for worker in workers:
        worker.give_up()
    return settled and not forced


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point of `coursewire worker`."""
    options = _parser().parse_args(argv)
    lines = [
        Line(queues.POLL, options.poll_slots),
        Line(queues.DELIVER, options.deliver_slots),
        Line(queues.MAINTAIN, 1),
    ]
    try:
        settings = Settings.from_env(os.environ)
        configure(settings.log_format, settings.log_level, "worker")
        settings.require("REDIS_URL", "ENCRYPTION_KEYS")
        redis_url = settings.require_redis_url()
        _allow_files()
        asyncio.run(check_server(redis_url))

        @asynccontextmanager
        async def open_context(draining: asyncio.Event) -> AsyncIterator[JobContext]:
            async with open_services(settings, part="worker") as services:
                with open_sync(redis_url) as connection:
                    yield JobContext(services, Dispatcher(services.schedule, connection), draining)

        return serve(open_context, redis_url, lines, drain_seconds=options.drain_seconds)
    except CoursewireError as error:
        sys.stderr.write(f"coursewire: {error}\n")
        return 2


def _allow_files() -> None:
    """Lets the process open as many files as it may: each receiver that never answers holds
    connections, and there should be others left."""
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if most == resource.RLIM_INFINITY else min(MAX_FILES, most)
    if files != resource.RLIM_INFINITY and files < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="coursewire worker",
        description="Polls integrations and delivers events until asked to stop.",
    )
    parser.add_argument(
        "--poll-slots", type=_slots, default=POLL_SLOTS, help="poll jobs at once (%(default)s)"
    )
    parser.add_argument(
        "--deliver-slots",
        type=_slots,
        default=DELIVER_SLOTS,
        help="delivery jobs at once (%(default)s)",
    )
    parser.add_argument(
        "--drain-seconds",
        type=_seconds,
        default=DRAIN_SECONDS,
        help="how long running jobs get to hand back at a stop (%(default)s)",
    )
    return parser


def _slots(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < threading.TIMEOUT_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds


def leave(code: int) -> None:
    """Ends the process, threads that no longer answer included."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(main())
