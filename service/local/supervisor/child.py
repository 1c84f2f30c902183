"""One child process: started, restarted when it ends, and stopped together with its descendants."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable
from contextlib import suppress

from service.local.supervisor.output import Sink
from service.local.supervisor.programs import Program
from service.logs import get_logger

RESTART_FIRST_SECONDS = 1.0
RESTART_MAX_SECONDS = 30.0
ORPHAN_SECONDS = 30  # an orphaned program is killed after this time
STABLE_SECONDS = 60.0  # a program that ran this long restarts its backoff

_OUTPUT_END_SECONDS = 1.0
_LINE_MAX_BYTES = 64 * 1024

# Runs a program that cannot outlive its supervisor, however the supervisor ends. Standard input is
# a pipe that only the supervisor holds open, so its end means that the supervisor has ended. The
# watch starts before the program, and runs in its process group, so the id of the group cannot pass
# to another process before the watch has ended too. The first argument is the number of seconds for
# an orphaned program to end, the second the signal that ends it, and the others are its command.
_LEASHED = """
left=$1 stop=$2
shift 2
exec 3<&0 </dev/null
{
  trap '' TERM
  read -r _ <&3
  kill -s $stop $$
  while [ $left -gt 0 ] && kill -0 $$; do sleep 1; left=$((left - 1)); done
  kill -s KILL -- -$$
} >/dev/null 2>&1 &
exec "$@" 3<&-
"""

_log = get_logger("supervisor")


def restart_delay(failures: int) -> float:
    """Seconds until a program is restarted after it ended `failures` times in succession."""
    return float(min(RESTART_MAX_SECONDS, RESTART_FIRST_SECONDS * 2 ** min(failures - 1, 30)))


class Ending:
    """Events that end all children of a supervisor."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()  # programs are not restarted
        self.hurried = asyncio.Event()  # everything is killed


class Child:
    """A program that runs until it is stopped, or ends after the supervisor began to stop."""

    def __init__(
        self, program: Program, environment: dict[str, str], sink: Sink, ending: Ending
    ) -> None:
        self.program = program
        self.pid: int | None = None
        self.failures = 0  # consecutive ones
        self._environment = environment
        self._sink = sink
        self._ending = ending
        self.stopping = asyncio.Event()
        self._task = asyncio.create_task(self._keep_running(), name=f"supervise {program.name}")

    async def stop(self) -> None:
        """Stop the program, by force after its time to drain, and wait until it has ended."""
        self.stopping.set()
        await self._task

    async def _keep_running(self) -> None:
        while not self._ending.begun.is_set():
            begun = time.monotonic()
            try:
                ending = await self._run()
            except OSError as error:
                ending = f"cannot be started: {error.strerror}"
            if self._ending.begun.is_set():
                break
            ran = time.monotonic() - begun
            self.failures = 1 if ran >= STABLE_SECONDS else self.failures + 1
            delay = restart_delay(self.failures)
            _log.warning(
                "process ended",
                process=self.program.name,
                ending=ending,
                ran_seconds=round(ran, 1),
                restart_in_seconds=delay,
            )
            await either(self._ending.begun.wait(), asyncio.sleep(delay))

    async def _run(self) -> str:
        """Run the program once, to its end. Returns how it ended."""
        lifeline, hold = os.pipe()
        # An own pipe, because `wait` would wait until a pipe of asyncio is closed. A process that
        # the program left behind could delay that forever.
        output, written = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                "/bin/sh",
                "-c",
                _LEASHED,
                "sh",
                str(ORPHAN_SECONDS),
                self.program.stop_signal.name.removeprefix("SIG"),
                *self.program.argv,
                stdin=lifeline,
                stdout=written,
                stderr=written,
                env=self._environment,
                pass_fds=self.program.inherit_fds,
                start_new_session=True,  # so that Ctrl-C reaches the supervisor alone
                preexec_fn=None if self.program.stop_signal == signal.SIGTERM else _block_sigterm,
            )
        except BaseException:
            os.close(hold)
            os.close(output)
            raise
        finally:
            os.close(lifeline)
            os.close(written)
        try:
            self.pid = process.pid
            passing_on = asyncio.create_task(self._pass_on(output))
            exited = asyncio.create_task(process.wait())
            await either(exited, self.stopping.wait())
            if not exited.done():
                await self._end(process, exited)
            _kill_group(process.pid)  # the watch, and processes that the program left behind
            await asyncio.wait({passing_on}, timeout=_OUTPUT_END_SECONDS)
            passing_on.cancel()
            return _ending(exited.result())
        finally:
            self.pid = None
            os.close(hold)

    async def _end(self, process: asyncio.subprocess.Process, exited: asyncio.Task[int]) -> None:
        hurried = self._ending.hurried
        if not hurried.is_set():
            process.send_signal(self.program.stop_signal)
            await either(exited, hurried.wait(), asyncio.sleep(self.program.drain_seconds))
        if not exited.done():
            _log.warning("process killed", process=self.program.name, pid=process.pid)
            _kill_group(process.pid)
            await exited

    async def _pass_on(self, output: int) -> None:
        stream = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(output, "rb", buffering=0)
        )
        rest = b""
        try:
            while chunk := await stream.read(_LINE_MAX_BYTES):
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) >= _LINE_MAX_BYTES:
                    lines, rest = [*lines, rest], b""
                for line in lines:
                    self._sink(self.program.name, line.decode(errors="replace").rstrip("\r"))
        finally:
            transport.close()
            if rest:
                self._sink(self.program.name, rest.decode(errors="replace"))


def _block_sigterm() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # the program inherits it


def _kill_group(pid: int) -> None:
    # macOS answers EPERM for a group of zombies.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


async def either(*awaitables: Awaitable[object]) -> None:
    """Wait until one of them is done. Coroutines are cancelled then, tasks continue."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task, awaitable in zip(tasks, awaitables, strict=True):
            if task is not awaitable:
                task.cancel()


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    return f"killed by {signal.Signals(-code).name}"
