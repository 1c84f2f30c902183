"""Child processes of a benchmark: started, spoken with in lines of JSON, measured, ended."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).parents[2]
_STOP_SECONDS = 40.0  # that a child gets to end once it was asked to
_LINE_BYTES = 1 << 24  # the longest line that a child may say


class Child:
    """A process that answers each line of JSON with one."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    async def ask(self, question: object) -> Any:
        """Sends one line and returns the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(question) + b"\n")
        await self._process.stdin.drain()
        return await self.hear()

    async def hear(self) -> Any:
        """What the next line says."""
        return msgspec.json.decode(await self.hear_text())

    async def hear_text(self) -> str:
        """The next line that the child says."""
        assert self._process.stdout is not None
        said = await self._process.stdout.readline()
        if not said:
            raise AssertionError(f"the child ended with {await self._process.wait()}")
        return said.decode()

    def cpu_seconds(self) -> float:
        """Processor seconds that it and those of its children that have ended took so far."""
        return cpu_seconds(self.pid)

    def tree_cpu_seconds(self) -> float:
        """The same with all that descend from it."""
        return tree_cpu_seconds(self.pid)


@asynccontextmanager
async def child(
    *command: str, environment: Mapping[str, str] | None = None, noisy: bool = True
) -> AsyncIterator[Child]:
    """`python -m command...`, ended by SIGTERM at the end; what it complains about is shown only
    if it is `noisy`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *command,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=None if noisy else asyncio.subprocess.DEVNULL,
        limit=_LINE_BYTES,
    )
    try:
        yield Child(process)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), _STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()


def cpu_seconds(pid: int) -> float:
    """Processor seconds that a process took so far, with those children it has waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # not Linux
        said = subprocess.run(
            ["ps", "-o", "time=", "-p", str(pid)], capture_output=True, text=True, check=True
        ).stdout
        return _clock_seconds(said.strip().replace("-", ":").split(":"))
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def tree_cpu_seconds(pid: int) -> float:
    """The same of a process with all that descend from it (elsewhere than on Linux: of itself).
    What has ended meanwhile is in the figure of whoever waited for it."""
    total = 0.0
    for each in descendants(pid):
        with suppress(OSError, subprocess.CalledProcessError):
            total += cpu_seconds(each)
    return total


def descendants(pid: int) -> list[int]:
    """The process and all that descend from it (elsewhere than on Linux: it alone)."""
    found = [pid]
    for each in found:
        for listed in Path(f"/proc/{each}/task").glob("*/children"):
            with suppress(OSError):
                found.extend(int(number) for number in listed.read_text().split())
    return found


def _clock_seconds(parts: Sequence[str]) -> float:
    total = 0.0
    for factor, part in zip((1, 60, 3600, 86400), reversed(parts), strict=False):
        total += factor * float(part)
    return total
