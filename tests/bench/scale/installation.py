"""One installation for a scene: a server of its own that cannot exhaust the machine's memory, and
what each step takes of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from service.bootstrap import Services
from service.settings import Settings
from service.storage.redis.scripts import Script, compiled
from tests.bench import report
from tests.bench.command import Options
from tests.bench.listeners import TOKEN
from tests.bench.processes import Child, child
from tests.bench.rig import embedded_server
from tests.bench.source import Source, environment, open_dispatching
from workers import upkeep
from workers.context import JobContext
from workers.dispatch.dispatcher import Dispatcher

_NOTED_US = 5_000  # commands that block the server for less are not listed
_LOOK_SECONDS = 0.25
_LEAST_LIMIT = 256_000_000  # bytes of the server, for what does not grow


class Step(msgspec.Struct, frozen=True):
    """The cost of a step: the number of items, seconds, processor seconds (of the server, the
    processes and the benchmark), the growth of server memory in bytes, the maximum resident MB of
    each process, and the longest command in ms (0 if no command took 5 ms)."""

    name: str
    items: int
    seconds: float
    cpu: float
    server_bytes: int
    process_mb: dict[str, float]
    blocked_ms: float
    blocked_by: str
    figures: dict[str, float] = {}


class Installation:
    """Services over a server of their own, the processes started on it and the steps measured."""

    def __init__(
        self, services: Services, dispatcher: Dispatcher, stack: AsyncExitStack, options: Options
    ) -> None:
        self.services = services
        self.dispatcher = dispatcher
        self.source = Source(services, dispatcher)
        self.options = options
        self.steps: list[Step] = []
        self._stack = stack
        self._parts: dict[str, Child] = {}
        self._processes: list[Child] = []

    async def start(self, part: str, *command: str) -> Child:
        """Starts a process, whose memory is noted if the `part` has a name."""
        environ = self.services.settings.to_environ()
        started = await self._stack.enter_async_context(child(*command, environment=environ))
        self._processes.append(started)
        if part:
            self._parts[part] = started
        return started

    async def start_workers(self) -> None:
        """One worker process and one scheduler."""
        await self.start("worker", "workers.worker")
        await self.start("", "workers.scheduler")
        await self.until(lambda: self.services.redis.scard("rq:workers"))

    @asynccontextmanager
    async def step(self, name: str, items: int) -> AsyncIterator[dict[str, float]]:
        """Measures what is done meanwhile; takes further figures."""
        redis = self.services.redis
        await redis.execute_command("SLOWLOG", "RESET")
        used, cpu, begun = await self._used(), await self._cpu(), time.perf_counter()
        figures: dict[str, float] = {}
        yield figures
        seconds, cpu = time.perf_counter() - begun, await self._cpu() - cpu
        # Emptying the list of slow commands may be slow itself.
        slow = [one for one in await redis.slowlog_get(-1) if one["command"] != b"SLOWLOG RESET"]
        longest = max(slow, key=lambda one: one["duration"], default=None)
        self.steps.append(
            Step(
                name,
                items,
                seconds,
                cpu,
                await self._used() - used,
                {part: _peak_mb(process.pid) for part, process in self._parts.items()},
                longest["duration"] / 1000 if longest else 0.0,
                _named(longest["command"]) if longest else "",
                figures,
            )
        )

    async def maintain(self, items: int) -> None:
        """A step: what is done every five minutes."""
        async with self.step("maintenance", items):
            await upkeep.run(JobContext(self.services, self.dispatcher, asyncio.Event()))

    async def until(self, reached: Callable[[], Any]) -> None:
        """Waits for a condition. Raises AssertionError if it is still false after the patience."""
        patience = self.options.patience
        over = time.monotonic() + patience
        while not await reached():
            if time.monotonic() > over:
                raise AssertionError(f"a step took more than {patience:g} s (--patience)")
            await asyncio.sleep(_LOOK_SECONDS)

    async def _cpu(self) -> float:
        others = sum(one.cpu_seconds() for one in self._processes)
        return time.process_time() + others + await report.server_cpu_seconds(self.services.redis)

    async def _used(self) -> int:
        return int((await self.services.redis.info("memory"))["used_memory"])


@asynccontextmanager
async def installation(need_bytes: int, options: Options) -> AsyncIterator[Installation]:
    """An installation whose server may use at most half as much again as it is to need."""
    async with AsyncExitStack() as stack:
        embedded = await stack.enter_async_context(embedded_server())
        settings = Settings.from_env(
            {
                **environment(embedded.require_redis_url()),
                "COURSEWIRE_ADMIN_TOKEN": TOKEN,
                "COURSEWIRE_PORT": str(embedded.port),
                "COURSEWIRE_MAX_INTEGRATIONS": "1000000",
                "COURSEWIRE_MAX_SUBSCRIPTIONS": "1000000",
            }
        )
        services, dispatcher = await open_dispatching(stack, settings)
        for name, value in (
            ("maxmemory", need_bytes * 3 // 2 + _LEAST_LIMIT),
            ("slowlog-log-slower-than", _NOTED_US),
            ("slowlog-max-len", 10_000),
        ):
            await services.redis.config_set(name, value)
        yield Installation(services, dispatcher, stack, options)


def _peak_mb(pid: int) -> float:
    """The most memory that a process had resident so far; 0 where that cannot be read."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # not Linux
        return 0.0
    return next(round(int(one.split()[1]) / 1e3, 1) for one in lines if one.startswith("VmHWM:"))


def _named(command: bytes) -> str:
    """What a command is called: a script by its name, any other by its first two words."""
    scripts = {compiled(one).digest: one.__name__ for one in Script.__subclasses__()}
    words = command.decode(errors="replace").split(" ")[:2]
    if words[0] == "EVAL":
        return "a script that was compiled"
    return scripts.get(words[-1], " ".join(words))
