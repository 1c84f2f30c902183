"""What docs/operations.md says of backup and restore, done."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from service.storage import keys
from tests.conftest import ValkeyServer, free_port

SECONDS = 20.0


class Servers:
    """Servers on directories of their own."""

    def __init__(self, started: list) -> None:
        self._started = started

    def start(self, directory: Path, **config: str) -> Redis:
        server = ValkeyServer(
            port=free_port(), data_dir=directory, persist=True, config={"save": '""', **config}
        )
        self._started.append(server)
        server.start()
        redis = Redis(port=server.port)
        await_that(redis.ping)
        return redis


def await_that(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            if condition():
                return
        except RedisError:
            pass
        assert time.monotonic() < deadline


@pytest.fixture
def servers() -> Iterator[Servers]:
    started: list = []
    yield Servers(started)
    for server in started:
        server.stop()


def fill(redis: Redis) -> None:
    redis.hset(keys.integration("int_a"), "record", "{}")
    redis.zadd(keys.INTEGRATIONS, {"int_a": 1})
    for number in range(1_000):
        redis.xadd(keys.EVENTS, {"n": number})


def test_a_copy_of_the_append_only_directory_restores_everything(servers, tmp_path):
    redis = servers.start(tmp_path / "old", appendonly="yes")
    fill(redis)
    redis.config_set("auto-aof-rewrite-percentage", 0)
    await_that(lambda: redis.info("persistence")["aof_rewrite_in_progress"] == 0)
    (tmp_path / "new").mkdir()
    shutil.copytree(tmp_path / "old/appendonlydir", tmp_path / "new/appendonlydir")
    redis.xadd(keys.EVENTS, {"n": "after"})

    restored = servers.start(tmp_path / "new", appendonly="yes")
    assert restored.xlen(keys.EVENTS) == 1_000
    assert restored.zrange(keys.INTEGRATIONS, 0, -1) == [b"int_a"]


def test_a_snapshot_restores_everything_and_is_made_append_only_again(servers, tmp_path):
    redis = servers.start(tmp_path / "old", appendonly="yes", dbfilename="coursewire.rdb")
    fill(redis)
    redis.save()
    (tmp_path / "new").mkdir()
    shutil.copy(tmp_path / "old/coursewire.rdb", tmp_path / "new")

    restored = servers.start(tmp_path / "new", appendonly="no", dbfilename="coursewire.rdb")
    assert restored.xlen(keys.EVENTS) == 1_000
    restored.config_set("appendonly", "yes")
    await_that(
        lambda: (
            restored.info("persistence")["aof_enabled"] == 1
            and restored.info("persistence")["aof_rewrite_in_progress"] == 0
            and (tmp_path / "new/appendonlydir").is_dir()
        )
    )
    shutil.copytree(tmp_path / "new/appendonlydir", tmp_path / "third/appendonlydir")
    again = servers.start(tmp_path / "third", appendonly="yes")
    assert again.xlen(keys.EVENTS) == 1_000
