from __future__ import annotations

import asyncio
import os
import signal
import stat
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from service.domain.errors import StartError
from service.local import embedded_valkey as embedded
from service.local.data_directory import DataDirectory
from service.local.supervisor.supervisor import Supervisor
from service.settings import Settings

pytestmark = pytest.mark.slow


def supervisor(data_dir: Path) -> Supervisor:
    """One that runs the embedded Valkey and nothing else."""
    return Supervisor(Settings(data_dir=data_dir, port=0), (), sink=lambda *_: None)


def client(running: Supervisor) -> Redis:
    return Redis.from_url(running.settings.require_redis_url(), decode_responses=True)


async def test_it_is_durable_evicts_nothing_and_listens_on_loopback_only(tmp_path):
    async with supervisor(tmp_path / "data") as running, client(running) as redis:
        assert await redis.config_get(
            "appendonly", "appendfsync", "maxmemory-policy", "save", "bind", "protected-mode"
        ) == {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "save": "",
            "bind": "127.0.0.1",
            "protected-mode": "yes",
        }


async def test_nobody_gets_in_without_the_password(tmp_path):
    async with supervisor(tmp_path / "data") as running:
        port = urlsplit(running.settings.redis_url).port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"PING\r\n")
        assert (await reader.readline()).startswith(b"-NOAUTH")
        writer.close()
        await writer.wait_closed()


async def test_a_restart_finds_everything_again(tmp_path):
    data_dir = tmp_path / "data with spaces"
    async with supervisor(data_dir) as running, client(running) as redis:
        await redis.set("kept", "yes")
    async with supervisor(data_dir) as running, client(running) as redis:
        assert await redis.get("kept") == "yes"


async def test_a_kill_loses_no_acknowledged_write(tmp_path, monkeypatch):
    monkeypatch.setattr("service.local.supervisor.child.RESTART_FIRST_SECONDS", 0.01)
    async with supervisor(tmp_path / "data") as running:
        before = running.pids()["valkey"]
        async with client(running) as redis:
            await redis.set("kept", "yes")
            os.kill(before, signal.SIGKILL)
        async with client(running) as redis:
            await _until_answering(redis)
            assert await redis.get("kept") == "yes"
        assert running.pids()["valkey"] != before


async def _until_answering(redis: Redis) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await redis.ping()
            except RedisConnectionError:
                await asyncio.sleep(0.01)
            else:
                return


async def test_addresses_stand_in_private_files_while_it_runs(tmp_path):
    redis_url, api_url = (tmp_path / "data" / name for name in ("redis-url", "api-url"))
    async with supervisor(tmp_path / "data") as running:
        assert redis_url.read_text().strip() == running.settings.redis_url
        assert api_url.read_text().strip() == running.api_url
        assert {stat.S_IMODE(path.stat().st_mode) for path in (redis_url, api_url)} == {0o600}
    assert not redis_url.exists()
    assert not api_url.exists()


async def test_everything_secret_in_the_data_directory_is_private(tmp_path):
    async with supervisor(tmp_path / "data"):
        for path in (tmp_path / "data").iterdir():
            private = 0o700 if path.is_dir() else 0o600
            assert stat.S_IMODE(path.stat().st_mode) == private, path


async def test_no_program_of_another_process_is_started_on_a_directory_in_use(tmp_path):
    async with supervisor(tmp_path / "data"):
        with pytest.raises(StartError, match=f"in use by process {os.getpid()};") as caught:
            await supervisor(tmp_path / "data").start()
    assert "\n" not in str(caught.value)


async def test_a_directory_that_cannot_be_written_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match=r"cannot be written \(.*COURSEWIRE_DATA_DIR") as caught:
        await supervisor(tmp_path / "file" / "data").start()
    assert "\n" not in str(caught.value)


async def test_a_platform_without_a_server_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        StartError, match=r"no embedded Valkey for .*COURSEWIRE_REDIS_URL"
    ) as caught:
        await supervisor(tmp_path / "data").start()
    assert "\n" not in str(caught.value)


async def test_data_it_cannot_load_is_reported_with_its_own_last_words(tmp_path):
    async with supervisor(tmp_path / "data") as running, client(running) as redis:
        await redis.set("kept", "yes")
    (manifest,) = (tmp_path / "data" / "valkey" / "appendonlydir").glob("*.manifest")
    manifest.write_text("nonsense")
    with pytest.raises(StartError, match=r"does not start: .*\(log: .*valkey\.log\)") as caught:
        await supervisor(tmp_path / "data").start()
    assert "\n" not in str(caught.value)
    DataDirectory(tmp_path / "data").release()  # nothing holds it any more


async def test_a_long_log_is_put_aside(tmp_path, monkeypatch):
    async with supervisor(tmp_path / "data"):
        pass
    monkeypatch.setattr(embedded, "LOG_MAX_BYTES", 10)
    log = tmp_path / "data" / "valkey" / "valkey.log"
    before = log.read_text()
    async with supervisor(tmp_path / "data"):
        pass
    assert log.with_name("valkey.log.1").read_text() == before
    assert before not in log.read_text()


async def test_the_directory_stays_held_for_as_long_as_a_child_has_the_lock(tmp_path):
    first = DataDirectory(tmp_path / "data")
    child = await asyncio.create_subprocess_exec(
        "sleep", "1000", pass_fds=(first.lock_fd,), stdin=asyncio.subprocess.DEVNULL
    )
    first.release()
    second = asyncio.create_task(asyncio.to_thread(DataDirectory, tmp_path / "data"))
    done, _ = await asyncio.wait({second}, timeout=0.2)
    assert not done
    child.kill()
    await child.wait()
    (await second).release()
