"""The RQ worker that runs many jobs at once, each in a slot."""

from __future__ import annotations

import threading
from typing import Final

from redis.connection import AbstractConnection
from redis.exceptions import RedisError
from rq import Queue
from rq.exceptions import DequeueTimeout, NoSuchJobError
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.suspension import WORKERS_SUSPENDED
from rq.worker import WorkerStatus

from service.logs import get_logger, redact
from service.storage.redis.client import open_sync
from workers.dispatch import queues
from workers.rq import event_loop as process
from workers.rq.job_recorder import JobRecorder
from workers.rq.registration import AWAY, WAITED_FOR, Pace, RegisteredWorker

AWAY_SECONDS: Final = 0.5  # between attempts to take a job while Redis is unreachable
FAILED_SECONDS: Final = 5.0  # before the next attempt after another failure to take a job

_log = get_logger("worker")


class BatchWorker(RegisteredWorker):
    """Serves one queue with several slots, each a thread that waits for a job's coroutine.

    It takes a slot before a job: the worker never holds a job that it cannot run. Commands to a
    worker over Redis (`rq.command`) are ignored.
    """

    death_penalty_class = process.CarriedTimeout

    def __init__(self, queue: str, url: str, *, slots: int, pace: Pace) -> None:
        super().__init__(queue, url, pace=pace)
        self._recorder = JobRecorder(self)
        self._dequeuing = open_sync(url, blocks_for=pace.dequeue, on_connect=self._note_client)
        self._dequeuing_client: int | None = None
        self._free = threading.Semaphore(slots)
        self._running_lock = threading.Lock()
        self._dequeue_thread = threading.Thread(
            target=self._dequeue, name=f"{self.kind}-dequeue", daemon=True
        )

    def start(self) -> None:
        """Starts serving the queue when Redis answers."""
        self._dequeue_thread.start()
        self._pulse_thread.start()

    @property
    def alive(self) -> bool:
        """Whether its threads run, as they do until `stop`."""
        return self._dequeue_thread.is_alive() and self._pulse_thread.is_alive()

    @property
    def idle(self) -> bool:
        """Whether it has stopped taking jobs and all have ended."""
        return not self._dequeue_thread.is_alive() and not self._running

    def stop(self) -> None:
        """Takes no more jobs. Repeat until `idle`, because a call may come just before a wait."""
        self._stopping.set()
        self._registered.set()
        self._free.release()  # ends a wait for a slot
        client = self._dequeuing_client
        if client is None or self._away or not self._dequeue_thread.is_alive():
            return
        try:
            self.connection.client_unblock(client)
        except RedisError as error:  # then the wait ends by itself
            _log.debug("wait for jobs not interrupted", error=str(error))

    def give_up(self) -> None:
        """Leaves unrecorded jobs to the maintenance of other workers."""
        self._recorder.give_up()

    def sign_off(self) -> None:
        """Ends the heartbeats, removes the worker from Redis and closes its connections."""
        super().sign_off()
        self._dequeuing.close()

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
            except WAITED_FOR as error:
                self.note_away(error)
                wait = AWAY_SECONDS
            except Exception as error:  # noqa: BLE001 - no error may end the serving
                _log.error("job not taken", worker=self.name, exc_info=error)
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
        """Waits for a job for `Pace.dequeue` seconds. Skips a job that expired in the queue."""
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
        except AWAY:
            raise
        except NoSuchJobError:
            pass
        except Exception as error:  # noqa: BLE001 - a job that cannot be read now can never be read
            _log.error("job cannot be read", job=job_id, exc_info=error)
        self._queue.intermediate_queue.remove(job_id)
        return None

    def _note_client(self, connection: AbstractConnection) -> None:
        connection.send_command("CLIENT", "ID")  # type: ignore[no-untyped-call]  # redis-py's
        self._dequeuing_client = int(connection.read_response())

    # --- running jobs: a thread each ----------------------------------------------------------

    def _occupy_slot(self, job: Job) -> None:
        try:
            self._run_job(job)
        except Exception as error:  # noqa: BLE001 - the slot must become free
            _log.error("job result not recorded", job=job.id, exc_info=error)
        finally:
            self._vacate_slot()

    def _vacate_slot(self) -> None:
        try:
            with self._running_lock:  # so that no job begins between the last end and `idle`
                self._running -= 1
                if not self._running:
                    self.set_state(WorkerStatus.IDLE)
        except RedisError as error:  # the next heartbeat sends it
            _log.debug("worker state not set", worker=self.name, error=str(error))
        finally:
            self._free.release()

    def _run_job(self, job: Job) -> None:
        try:
            execution = self.prepare_execution(job)
            self.prepare_job_execution(job, remove_from_intermediate_queue=True)
        except RedisError as error:
            # The claim lapses and is due again; the keys of the execution expire.
            self._recorder.forget(job)
            _log.warning("job not started", job=job.id, error=str(error))
            return
        try:
            with process.CarriedTimeout(job.timeout or queues.JOB_TIMEOUT):
                job.perform()
        except Exception as error:  # noqa: BLE001 - any error of a job is its result
            self.handle_execution_ended(job, self._queue, 0)
            reason = str(redact(None, "", {"error": f"{type(error).__name__}: {error}"})["error"])
            if isinstance(error, process.WorkStoppedError):
                _log.warning("job stopped", job=job.id, work=job.description)
            else:
                _log.error("job failed", job=job.id, work=job.description, exc_info=error)
            self._recorder.failed(job, execution, reason)
        else:
            self.handle_execution_ended(job, self._queue, 0)
            self._recorder.succeeded(job, execution)
