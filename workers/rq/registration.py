"""A worker's registration in Redis, its heartbeats and its state."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from datetime import UTC, datetime
from typing import Final

import msgspec
from redis import Redis
from redis.client import Pipeline
from redis.exceptions import (
    ConnectionError,  # noqa: A004 - redis's own name
    OutOfMemoryError,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004 - redis's own name
)
from rq import Queue, worker_registration
from rq.job import Job
from rq.registry import clean_registries
from rq.serializers import JSONSerializer
from rq.suspension import WORKERS_SUSPENDED
from rq.utils import utcformat
from rq.worker import BaseWorker, WorkerStatus

from service.logs import get_logger
from service.storage.redis.client import open_sync

AWAY: Final = (ConnectionError, TimeoutError)
# a full server accepts no heartbeat and returns no job
WAITED_FOR: Final = (*AWAY, OutOfMemoryError)
_END_SECONDS: Final = 1.0  # for the last heartbeat to end

_log = get_logger("worker")


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """The intervals of a worker, in seconds.

    A worker or an execution that sends no heartbeat for its `ttl` counts as lost. The next
    maintenance of any worker moves the jobs of a lost worker to the failed ones.
    """

    dequeue: int = 5
    heartbeat: float = 10.0
    worker_ttl: int = 60
    execution_ttl: int = 75
    maintenance: int = 60


DEFAULT_PACE: Final = Pace()


class RegisteredWorker(BaseWorker):
    """A worker of one queue that sends heartbeats from its own thread.

    It does not need the main thread, and continues when Redis is unreachable.
    """

    def __init__(self, queue: str, url: str, *, pace: Pace) -> None:
        self.kind = queue.removeprefix("coursewire-")
        super().__init__(
            queue,
            # The process id alone is not unique among containers that share a host name.
            name=f"{socket.gethostname()}-{os.getpid()}-{self.kind}-{secrets.token_hex(2)}",
            connection=open_sync(url),
            serializer=JSONSerializer,
            worker_ttl=pace.worker_ttl,
            maintenance_interval=pace.maintenance,
            prepare_for_work=False,
        )
        self.hostname = socket.gethostname()
        self.pid = os.getpid()
        self.executions_lock = threading.Lock()  # held while heartbeats are sent
        self._pace = pace
        self._queue: Queue = self.queues[0]
        self._running = 0  # jobs
        self._suspension = False  # `rq suspend` is in force, as last read
        self._suspended = False  # and is applied
        self._away = False
        self._registered = threading.Event()
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._pulse_thread = threading.Thread(
            target=self._pulse, name=f"{self.kind}-pulse", daemon=True
        )

    def sign_off(self) -> None:
        """Ends the heartbeats and removes the worker from Redis."""
        self._ended.set()
        self._pulse_thread.join(_END_SECONDS)
        try:
            if self._away:
                raise ConnectionError("Redis is unreachable")
            self.register_death()  # type: ignore[no-untyped-call]  # RQ leaves it untyped
        except RedisError as error:
            _log.warning("worker not deregistered", worker=self.name, error=str(error))
        self.connection.close()

    def note_away(self, error: Exception) -> None:
        """Logs that Redis is unreachable, once until it is reachable again."""
        if not self._away:
            self._away = True
            _log.warning("Redis is unreachable", worker=self.name, error=str(error))

    # --- methods of RQ's worker that assume one job at a time in the main thread --------------

    def _set_connection(self, connection: Redis) -> Redis:
        return connection  # its timeouts are set where it is opened

    def procline(self, message: str) -> None:
        """Keeps the title of the process, which would show one of many jobs."""

    def register_birth(self) -> None:
        """Registers the worker, also after Redis has lost it."""
        if self.birth_date is None:
            self.birth_date = datetime.now(UTC)
        try:
            self.ip_address = str(self.connection.client_info()["addr"])
        except ResponseError:  # forbidden here, and only informative
            self.ip_address = "unknown"
        with self.connection.pipeline() as pipeline:
            self.heartbeat(pipeline=pipeline)
            pipeline.hset(self.key, mapping=self.serialize())
            worker_registration.register(self, pipeline)
            # `rq info` shows the workers of known queues; this one may have had no job yet.
            pipeline.sadd(Queue.redis_queues_keys, self._queue.key)
            pipeline.execute()

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Writes the time and the state, and renews the lifetime of the worker's key."""
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
        """Writes the true state instead of RQ's: a worker with running jobs is not idle."""
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
        """If Redis had lost the worker's key, the last write created it without a lifetime. If the
        worker were killed before its next heartbeat, that key would never expire."""
        connection.expire(self.key, self._pace.worker_ttl)

    def handle_execution_ended(self, job: Job, queue: Queue, heartbeat_ttl: int) -> None:
        """Records when the job ended; a last heartbeat could restore a deleted job's key."""
        job.ended_at = datetime.now(UTC)

    def clean_registries(self) -> None:
        """Removes jobs of lost workers from `started`; once a minute among all workers. The lock
        expires, so that a worker that dies here does not block others."""
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

    # --- the heartbeats: one thread -----------------------------------------------------------

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
                    # The other workers reconnect now too: wait for their heartbeats first.
                    self._postpone_maintenance()
                    _log.info("Redis is reachable again", worker=self.name)
                if self.should_run_maintenance_tasks and not self._stopping.is_set():
                    self.clean_registries()
            except WAITED_FOR as error:
                self.note_away(error)
                wait = min(1.0, wait)
            except Exception as error:  # noqa: BLE001 - heartbeats continue after any error
                _log.error("heartbeat failed", worker=self.name, exc_info=error)

    def _beat(self) -> bool:
        """Sends all heartbeats; returns whether Redis has lost the worker."""
        with self.executions_lock, self.connection.pipeline(transaction=False) as pipeline:
            self.heartbeat(pipeline=pipeline)
            registry = self._queue.started_job_registry
            for execution in list(self.executions.values()):
                execution.heartbeat(registry, self._pace.execution_ttl, pipeline)
            pipeline.exists(WORKERS_SUSPENDED)
            replies = pipeline.execute()
        self._suspension = bool(replies[-1])
        return bool(replies[0])  # fields that did not exist
