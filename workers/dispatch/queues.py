"""The RQ queues: their names, and how jobs get into them."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from service.storage.redis import keys

if TYPE_CHECKING:
    from redis import Redis

POLL: Final = "coursewire-poll"
DELIVER: Final = "coursewire-deliver"
MAINTAIN: Final = "coursewire-maintain"

JOB_TIMEOUT: Final = 90  # seconds; a job returns unfinished work long before
MAINTAIN_TIMEOUT: Final = 240  # seconds
MAINTAIN_TTL: Final = 300  # seconds for which maintenance may wait for a worker
FAILURE_TTL: Final = 86_400  # seconds for which a failed job is kept

# Jobs name their function, so that enqueueing does not import the code of the work.
_FUNCTIONS: Final = {
    POLL: "workers.rq.jobs.poll",
    DELIVER: "workers.rq.jobs.deliver",
    MAINTAIN: "workers.rq.jobs.maintain",
}
_DESCRIPTIONS: Final = {POLL: "poll {} integrations", DELIVER: "deliver {} outboxes"}


def enqueue(
    connection: Redis,
    queue: str,
    claims: Sequence[tuple[str, int]],
    *,
    ttl: int,
    timeout: int = JOB_TIMEOUT,
) -> str:
    """Enqueues one job for `claims`, pairs of an id and its claim token; returns the job's id.

    `ttl` is the lifetime of the claims in seconds: a job that has not begun by then expires.
    `timeout` is the maximum run time of the job in seconds. Raises RedisError if it was not
    enqueued.
    """
    return _enqueue(
        connection, queue, (claims,), _DESCRIPTIONS[queue].format(len(claims)), ttl, timeout
    )


def begun(connection: Redis, queue: str) -> dict[str, int]:
    """The newest claims by id in jobs that workers have taken from a queue. Raises RedisError."""
    taken = Queue(queue, connection=connection, serializer=JSONSerializer)
    ids = taken.started_job_registry.get_job_ids(cleanup=False)
    ids += taken.intermediate_queue.get_job_ids()
    jobs = Job.fetch_many(ids, connection, serializer=JSONSerializer)
    claims = [claim for job in jobs if job is not None for claim in job.args[0]]
    return dict(sorted(claims, key=itemgetter(1)))


def enqueue_maintenance(connection: Redis) -> str | None:
    """Enqueues one maintenance job unless one waits already; returns its id.

    Raises RedisError if it was not enqueued.
    """
    if backlog(connection, MAINTAIN):
        return None
    return _enqueue(connection, MAINTAIN, (), "maintain", MAINTAIN_TTL, MAINTAIN_TIMEOUT)


def backlog(connection: Redis, queue: str) -> int:
    """The number of job ids in a queue, including those of expired jobs."""
    length: int = connection.llen(keys.rq_queue(queue))
    return length


def _enqueue(
    connection: Redis,
    queue: str,
    args: tuple[object, ...],
    description: str,
    ttl: int,
    timeout: int,
) -> str:
    job = Queue(queue, connection=connection, serializer=JSONSerializer).enqueue_call(
        _FUNCTIONS[queue],
        args=args,
        timeout=timeout,
        result_ttl=0,
        ttl=ttl,
        failure_ttl=FAILURE_TTL,
        description=description,
    )
    return str(job.id)
