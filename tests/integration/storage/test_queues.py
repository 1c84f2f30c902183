from __future__ import annotations

import asyncio
import threading

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from service.storage.redis import keys
from service.storage.redis.client import open_async, open_sync
from service.storage.scheduling.schedule import Claims
from workers.dispatch import queues
from workers.dispatch.dispatcher import QUEUES, Dispatcher


@pytest.fixture
def admin(valkey_admin_url):
    with open_sync(valkey_admin_url) as admin:
        admin.flushall()
        yield admin


@pytest.fixture
def connection(admin, valkey_url):
    with open_sync(valkey_url) as connection:
        yield connection


def fetch(connection: Redis, job_id: str) -> Job:
    return Job.fetch(job_id, connection, JSONSerializer)


def test_a_job_carries_its_claims_and_expires_with_them(connection, admin):
    job_id = queues.enqueue(
        connection, queues.POLL, [("int_a", 1_795_424_001_123), ("int_b", 7)], ttl=30
    )
    job = fetch(connection, job_id)
    assert job.func_name == "workers.rq.jobs.poll"
    assert job.args == [[["int_a", 1_795_424_001_123], ["int_b", 7]]]
    assert job.description == "poll 2 integrations"
    assert (job.timeout, job.result_ttl, job.failure_ttl) == (90, 0, 86_400)
    assert 25 < admin.ttl(job.key) <= 30
    assert job.func is not None


def test_each_queue_has_its_function(connection):
    deliver = fetch(connection, queues.enqueue(connection, queues.DELIVER, [("sub_a", 1)], ttl=9))
    assert (deliver.func_name, deliver.origin) == ("workers.rq.jobs.deliver", queues.DELIVER)
    maintain = fetch(connection, queues.enqueue_maintenance(connection))
    assert (maintain.func_name, maintain.args) == ("workers.rq.jobs.maintain", [])


def test_the_backlog_is_the_length_of_the_list_under_its_key(connection):
    assert queues.backlog(connection, queues.POLL) == 0
    queues.enqueue(connection, queues.POLL, [("int_a", 1)], ttl=30)
    assert queues.backlog(connection, queues.POLL) == 1
    assert connection.llen(keys.rq_queue(queues.POLL)) == 1


def test_claims_that_workers_have_taken_are_found_by_id(connection):
    queue = Queue(queues.POLL, connection=connection, serializer=JSONSerializer)
    for claims in ([("int_a", 3), ("int_b", 1)], [("int_a", 2)], [("int_waiting", 1)]):
        queues.enqueue(connection, queues.POLL, claims, ttl=30)
    assert queues.begun(connection, queues.POLL) == {}
    for _ in range(2):
        Queue.lmove(connection, queue.key, 1)
    assert queues.begun(connection, queues.POLL) == {"int_a": 3, "int_b": 1}


def test_maintenance_is_enqueued_once_at_a_time(connection):
    assert queues.enqueue_maintenance(connection) is not None
    assert queues.enqueue_maintenance(connection) is None
    assert queues.backlog(connection, queues.MAINTAIN) == 1


def test_a_command_whose_answer_was_lost_is_not_sent_again(admin, valkey_admin_url):
    with open_sync(valkey_admin_url, blocks_for=20) as waiting:
        outcome: list[BaseException] = []

        def wait() -> None:
            try:
                waiting.blpop(["list"], 20)
            except RedisConnectionError as error:
                outcome.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        while not (blocked := [c for c in admin.client_list() if c["cmd"] == "blpop"]):
            pass
        admin.client_kill_filter(_id=blocked[0]["id"])
        thread.join(10)
        assert outcome
        admin.rpush("list", "kept")
        assert admin.lrange("list", 0, -1) == [b"kept"]


async def test_more_commands_than_connections_wait_for_one(valkey_url):
    client = open_async(valkey_url, max_connections=2)
    try:
        assert await asyncio.gather(*(client.ping() for _ in range(20))) == [True] * 20
    finally:
        await client.aclose()


def test_a_connection_that_the_server_closed_is_replaced_unnoticed(valkey_admin_url):
    with open_sync(valkey_admin_url) as first, open_sync(valkey_admin_url) as second:
        for _ in range(2):
            own = first.client_id()
            second.client_kill_filter(_id=str(own))
            assert first.ping()


def test_redis_away_is_said_at_once(unused_tcp_port):
    with (
        open_sync(f"redis://127.0.0.1:{unused_tcp_port}/0") as client,
        pytest.raises(RedisConnectionError),
    ):
        client.ping()


class _Due:
    """A schedule on which all given ids are due, and whose claims report `workers`."""

    def __init__(self, workers: int, **ids: list[str]) -> None:
        self._workers = workers
        self._ids = ids

    async def claim(self, limits, _ms, _scheduler):
        return [Claims(7, self._ids[one.kind], self._workers) for one in limits]


@pytest.mark.parametrize(
    ("kind", "due", "workers", "sizes"),
    [
        ("outboxes", 20, 4, [20]),
        ("outboxes", 60, 0, [60]),  # none is registered yet
        ("outboxes", 60, 1, [60]),
        ("outboxes", 60, 2, [30, 30]),
        ("outboxes", 60, 8, [25, 25, 10]),
        ("outboxes", 1_000, 1, [250] * 4),
        ("outboxes", 1_000, 8, [125] * 8),
        ("polls", 500, 1, [10] * 50),
    ],
)
async def test_many_outboxes_at_once_form_few_jobs(connection, kind, due, workers, sizes):
    ids = [f"id_{number}" for number in range(due)]
    assert await Dispatcher(_Due(workers, **{kind: ids}), connection).dispatch(kind) == due
    queue = Queue(QUEUES[kind], connection=connection, serializer=JSONSerializer)
    batches = [fetch(connection, job_id).args[0] for job_id in queue.job_ids]
    assert [len(batch) for batch in batches] == sizes
    assert [owned_id for batch in batches for owned_id, _ in batch] == ids
