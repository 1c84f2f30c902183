"""What docs/operations/backup.md says of backup and restore, done."""

from __future__ import annotations

import gzip
import shutil
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from service.storage.redis import keys
from tests.conftest import ValkeyServer, free_port

pytestmark = pytest.mark.slow

SECONDS = 20.0
(DATA_SET,) = (Path(__file__).parents[2] / "releases").glob(f"{version('coursewire')}/dump.rdb.gz")


class Servers:
    """Servers on directories of their own."""

    def __init__(self, started: list) -> None:
        self._started = started

    def start(self, directory: Path, **config: str) -> Redis:
        server = ValkeyServer(
            port=free_port(),
            data_dir=directory,
            persist=True,
            config={"save": '""', "enable-debug-command": "yes", **config},
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


def fill(directory: Path) -> None:
    """Lays what a release has left at the end of an eventful life where the server finds it."""
    directory.mkdir()
    (directory / "dump.rdb").write_bytes(gzip.decompress(DATA_SET.read_bytes()))


def contents(redis: Redis) -> dict[bytes, bytes]:
    """Every key that does not expire, with a digest of its value."""
    return {
        key: redis.execute_command("DEBUG", "DIGEST-VALUE", key)
        for key in redis.scan_iter()
        if redis.ttl(key) == -1
    }


def is_append_only(redis: Redis) -> bool:
    found = redis.info("persistence")
    return found["aof_enabled"] == 1 and found["aof_rewrite_in_progress"] == 0


def test_a_copy_of_the_append_only_directory_restores_everything(servers, tmp_path):
    fill(tmp_path / "old")
    redis = servers.start(tmp_path / "old", appendonly="no")
    redis.config_set("appendonly", "yes")
    await_that(lambda: is_append_only(redis))
    redis.config_set("auto-aof-rewrite-percentage", 0)
    redis.xadd(keys.EVENTS, {"n": "since the file was written anew"})
    before = contents(redis)
    assert len(before) > 50
    (tmp_path / "new").mkdir()
    shutil.copytree(tmp_path / "old/appendonlydir", tmp_path / "new/appendonlydir")
    redis.xadd(keys.EVENTS, {"n": "after"})

    restored = servers.start(tmp_path / "new", appendonly="yes")
    assert contents(restored) == before


def test_a_snapshot_restores_everything_and_is_made_append_only_again(servers, tmp_path):
    fill(tmp_path / "old")
    redis = servers.start(tmp_path / "old", appendonly="no")
    redis.xadd(keys.EVENTS, {"n": "since"})
    redis.save()
    before = contents(redis)
    (tmp_path / "new").mkdir()
    shutil.copy(tmp_path / "old/dump.rdb", tmp_path / "new/coursewire.rdb")

    restored = servers.start(tmp_path / "new", appendonly="no", dbfilename="coursewire.rdb")
    assert contents(restored) == before
    restored.config_set("appendonly", "yes")
    await_that(lambda: is_append_only(restored) and (tmp_path / "new/appendonlydir").is_dir())
    shutil.copytree(tmp_path / "new/appendonlydir", tmp_path / "third/appendonlydir")
    again = servers.start(tmp_path / "third", appendonly="yes")
    assert contents(again) == before
