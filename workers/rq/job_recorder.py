"""Records in Redis how a job ended, and tries again if Redis is unreachable."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from redis.client import Pipeline
from redis.exceptions import (
    ConnectionError,  # noqa: A004 - redis's own name
    OutOfMemoryError,
)
from rq import Queue
from rq.executions import Execution
from rq.job import Job
from rq.results import Result

from service.logs import get_logger
from workers.rq.registration import AWAY, RegisteredWorker

MAX_WAIT_SECONDS: Final = 5.0  # between attempts to record how a job ended; grows up to this

_log = get_logger("worker")


class JobRecorder:
    """Records the jobs of one worker."""

    def __init__(self, worker: RegisteredWorker) -> None:
        self._worker = worker
        self._queue: Queue = worker.queues[0]
        self._connection = worker.connection
        self._giving_up = threading.Event()

    def give_up(self) -> None:
        """Leaves unrecorded jobs to the maintenance of other workers."""
        self._giving_up.set()

    def forget(self, job: Job) -> None:
        """Sends no more heartbeats for a job that was not started."""
        worker = self._worker
        with worker.executions_lock:
            for begun in list(worker.executions.values()):
                if begun.job_id == job.id:
                    del worker.executions[begun.id]

    def succeeded(self, job: Job, execution: Execution) -> None:
        """Counts the job and deletes its keys."""
        self._record(job, execution, lambda: self._record_success(job, execution))

    def failed(self, job: Job, execution: Execution, reason: str) -> None:
        """Moves the job to the failed ones."""
        self._record(job, execution, lambda: self._record_failure(job, execution, reason))

    def _record(self, job: Job, execution: Execution, write: Callable[[], None]) -> None:
        """Writes until Redis answers, or until `give_up`."""
        wait = 0.1
        while True:
            with self._worker.executions_lock:  # no heartbeat may restore it
                self._worker.executions.pop(execution.id, None)
            try:
                write()
            except AWAY as error:
                self._worker.note_away(error)
                self._worker.executions[execution.id] = execution
                if self._giving_up.wait(wait):
                    raise
                wait = min(2 * wait, MAX_WAIT_SECONDS)
            except OutOfMemoryError as error:  # counting the job needs memory, erasing it does not
                _log.warning("job not counted", job=job.id, error=str(error))
                write = lambda: self._erase(job, execution)  # noqa: E731 - like the parameter
            except Exception as error:  # noqa: BLE001 - it must still be erased
                _log.error("job not recorded", job=job.id, exc_info=error)
                write = lambda: self._erase(job, execution)  # noqa: E731 - like the parameter
            else:
                return

    def _record_success(self, job: Job, execution: Execution) -> None:
        """Counts the job and deletes its keys, in one round trip.

        Repeating it does no harm. RQ's own method takes about 30 commands.
        """
        with self._connection.pipeline() as pipeline:
            self._worker.increment_successful_job_count(pipeline)
            if job.started_at and job.ended_at:
                self._worker.increment_total_working_time(job.ended_at - job.started_at, pipeline)
            self._erase(job, execution, pipeline)

    def _erase(self, job: Job, execution: Execution, pipeline: Pipeline | None = None) -> None:
        pipeline = pipeline or self._connection.pipeline()
        execution.delete(job, pipeline)
        pipeline.delete(
            job.key,
            Result.get_key(job.id),  # type: ignore[no-untyped-call]  # RQ leaves it untyped
            self._queue.intermediate_queue.get_first_seen_key(job.id),
        )
        pipeline.execute()

    def _record_failure(self, job: Job, execution: Execution, reason: str) -> None:
        """Moves the job to the failed ones. Raises RedisError if that did not succeed."""
        self._connection.ping()  # RQ only logs the errors of the next call
        self._worker.handle_job_failure(job, self._queue, exc_string=reason, execution=execution)
        if self._connection.zscore(self._queue.started_job_registry.key, execution.composite_key):
            raise ConnectionError("the failure was not recorded")
