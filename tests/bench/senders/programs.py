"""Programs of a measured system: started in groups of their own, metered together, all ended."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.bench.processes import cpu_seconds, descendants

_STOP_SECONDS = 15.0  # that a program gets to end once it was asked to
_METER_SECONDS = 1.0  # between looks at the memory
_READY_SECONDS = 90.0
_LOOK_SECONDS = 0.05
_LOG_LINES = 15  # of a program that failed, which are shown


class Program:
    """One started program, with whatever it started."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log
        self.pid = process.pid

    def pids(self) -> list[int]:
        return descendants(self.pid)

    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def check(self) -> None:
        """Raises AssertionError with the end of its log if it has ended."""
        if self._process.returncode is not None:
            lines = self.output().splitlines()[-_LOG_LINES:]
            raise AssertionError("\n".join([f"{self._log.stem} has ended:", *lines]))

    async def writes(self, text: str) -> None:
        """Waits until its log has the text."""
        async with asyncio.timeout(_READY_SECONDS):
            while text not in self.output():
                self.check()
                await asyncio.sleep(_LOOK_SECONDS)

    async def succeed(self) -> None:
        """Waits for its end. Raises AssertionError if it failed."""
        if await asyncio.wait_for(self._process.wait(), _READY_SECONDS):
            self.check()

    async def stop(self, first: signal.Signals) -> None:
        """Ends it and all that descends from it."""
        everything = {pid: _birth(pid) for pid in self.pids()}
        _signal([self.pid], first)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)
        # A number may be another process's by now.
        _signal([pid for pid, birth in everything.items() if _birth(pid) == birth], signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await self._process.wait()


@asynccontextmanager
async def program(
    *command: str | Path,
    log: Path,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    stop: signal.Signals = signal.SIGTERM,
) -> AsyncIterator[Program]:
    """Runs a program whose output goes to `log`."""
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            *map(str, command),
            cwd=directory,
            env={**os.environ, **(environment or {})},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    running = Program(process, log)
    try:
        yield running
    finally:
        await asyncio.shield(running.stop(stop))


async def run(
    *command: str | Path, log: Path, environment: Mapping[str, str] | None = None, **more: object
) -> str:
    """Runs a program to its end; returns its output. Raises AssertionError if it fails."""
    async with program(*command, log=log, environment=environment, **more) as one:
        await one.succeed()
    return one.output()


async def listens(port: int, by: Program) -> None:
    """Waits until a program accepts connections."""
    async with asyncio.timeout(_READY_SECONDS):
        while True:
            by.check()
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(_LOOK_SECONDS)


class Meter:
    """Processor time and memory of all programs of a system."""

    def __init__(self) -> None:
        self.programs: dict[str, Program] = {}
        self._ended = 0.0  # processor seconds of what was killed
        self.peak_mb = 0.0

    def pids(self) -> list[int]:
        return [pid for one in self.programs.values() for pid in one.pids()]

    def cpu_seconds(self) -> float:
        return self._ended + _cpu_seconds(self.pids())

    def about_to_kill(self, pids: Sequence[int]) -> None:
        """Keeps what the processes have taken, if nobody that is metered waits for them."""
        self._ended += _cpu_seconds(pids)

    async def watch(self) -> None:
        """Notes the greatest memory until it is cancelled; shared pages count once."""
        while True:
            total = sum(map(_proportional_bytes, self.pids()))
            self.peak_mb = max(self.peak_mb, round(total / 1e6, 1))
            await asyncio.sleep(_METER_SECONDS)


def _cpu_seconds(pids: Sequence[int]) -> float:
    total = 0.0
    for pid in pids:
        with suppress(OSError):
            total += cpu_seconds(pid)
    return total


def _proportional_bytes(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def _birth(pid: int) -> str:
    """When the process began, by its kernel; nothing if it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
