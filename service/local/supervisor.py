"""`coursewire up`: Valkey, API, workers and scheduler as child processes of one supervisor."""

from __future__ import annotations

import asyncio
import base64
import errno
import io
import json
import os
import secrets
import shlex
import signal
import socket
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO, cast

import msgspec
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from service.domain.errors import SettingsError, StartError
from service.domain.hosts import in_header, in_url, reachable
from service.local import embedded_valkey as embedded
from service.local.data_directory import (
    ADMIN_TOKEN_FILE,
    ENCRYPTION_KEYS_FILE,
    REDIS_URL_FILE,
    DataDirectory,
)
from service.local.embedded_valkey import EmbeddedValkey, free_port
from service.logs import configure, get_logger, wants_colour
from service.redis_url import read_redis_url
from service.settings import KEY_BYTES, PREFIX, Settings
from service.storage.redis.client import NotServingError, open_async
from service.storage.redis.rights import Rights
from service.storage.redis.server_info import check_server

RESTART_FIRST_SECONDS = 1.0
RESTART_MAX_SECONDS = 30.0
ORPHAN_SECONDS = 30  # what outlives the supervisor is killed after that long
STABLE_SECONDS = 60.0  # a program that ran this long starts its backoff anew

_POLL_SECONDS = 0.05
_POLL_MAX_SECONDS = 0.5  # once the API answers, for it logs each refusal
_READY_REQUEST_SECONDS = 2.0
_REPORT_EVERY_SECONDS = 5.0  # while the service does not become ready
_FIRST_ANSWER_SECONDS = 600.0  # a large append-only file takes its time to load
_OUTPUT_END_SECONDS = 1.0
_LINE_MAX_BYTES = 64 * 1024

# Runs a program that cannot outlive its supervisor, whatever ends the supervisor. Standard
# input is a pipe that only the supervisor holds open, so its end means that the supervisor is
# gone. The watch begins before the program does, and lives in its process group, whose id
# therefore cannot pass to another process until the watch, too, has ended. The first argument
# is how many seconds an orphaned program has to end by itself, the rest is its command.
_LEASHED = """
left=$1
shift
exec 3<&0 </dev/null
{
  read -r _ <&3
  kill -s TERM $$
  while [ $left -gt 0 ] && kill -0 $$; do sleep 1; left=$((left - 1)); done
  kill -s KILL -- -$$
} >/dev/null 2>&1 &
exec "$@" 3<&-
"""

_log = get_logger("supervisor")

Sink = Callable[[str, str], None]  # takes a program's name and a line it wrote


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """One child process of the supervisor.

    Programs of the lowest `stop_order` are told to stop first (SIGTERM), and have ended before
    the next are told; what runs on for `drain_seconds` after that is killed. `environment` is
    added to the supervisor's own and to the settings.
    """

    name: str
    argv: tuple[str, ...]
    stop_order: int
    drain_seconds: float = 10.0
    environment: Mapping[str, str] = msgspec.field(default_factory=dict)
    inherit_fds: tuple[int, ...] = ()


PROGRAMS: tuple[Program, ...] = (
    Program(
        name="worker",
        argv=(sys.executable, "-m", "workers.rq.batch_worker"),
        stop_order=1,
        drain_seconds=25.0,  # the worker drains for 20 itself
    ),
    Program(
        name="scheduler",
        argv=(sys.executable, "-m", "workers.scheduler"),
        stop_order=1,
    ),
    Program(
        name="api",
        argv=(sys.executable, "-m", "service.cli", "api"),
        stop_order=2,
        # No other API takes over from this one, so nobody is to be given time to turn to it.
        environment={f"{PREFIX}SHUTDOWN_DELAY_SECONDS": "0"},
    ),
)
VALKEY_STOP_ORDER = 9


def restart_delay(failures: int) -> float:
    """Seconds until a program is started again after it ended `failures` times in a row."""
    return float(min(RESTART_MAX_SECONDS, RESTART_FIRST_SECONDS * 2 ** min(failures - 1, 30)))


class Supervisor:
    """Runs the service's programs, and an embedded Valkey where the settings name no Redis.

    `start`, `ready`, `stop` in this order; `async with` does the first and the last. `settings`
    are complete once started: secrets made, port chosen, `redis_url` filled in. `sink` gets
    every line the programs write; `colour` has them write in colours.
    """

    def __init__(
        self,
        settings: Settings,
        programs: Sequence[Program] = PROGRAMS,
        *,
        sink: Sink,
        colour: bool = False,
    ) -> None:
        self.settings = settings
        self.token_file: Path | None = None  # None where the token came with the settings
        self._programs = programs
        self._sink = sink
        self._colour = colour
        self._data: DataDirectory | None = None
        self._children: list[_Child] = []
        self._outside_redis: str | None = None  # None where the Valkey is our own
        self._hurry = asyncio.Event()

    async def __aenter__(self) -> Supervisor:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    @property
    def api_url(self) -> str:
        """The API's address, as reached from this machine."""
        return f"http://{in_url(reachable(self.settings.host))}:{self.settings.port}"

    async def start(self) -> None:
        """Start everything. Raises StartError if that is impossible; nothing runs then."""
        # Before the port: where the service runs already, that is what there is to say.
        self._data = DataDirectory(self.settings.data_dir)
        try:
            port = self.settings.port or free_port(self.settings.host)
            check_port(self.settings.host, port)
            self.settings = msgspec.structs.replace(
                self.settings, port=port, data_dir=self._data.path
            )
            self._complete_secrets(self._data)
            if self.settings.redis_url is None:
                await self._start_valkey(self._data)
            else:
                self._outside_redis = self.settings.redis_url
                await check_server(self._outside_redis)
                if (fault := await redis_fault(self._outside_redis)) is not None:
                    _log.warning(fault)
            for program in self._programs:
                self.add(program)
        except BaseException:
            await self.stop()
            raise

    def add(self, program: Program) -> None:
        """Start one more program, to be kept running and stopped with the others."""
        environment = {
            **_inherited(),
            **self.settings.to_environ(),
            **({"FORCE_COLOR": "1"} if self._colour else {}),
            "PYTHONUNBUFFERED": "1",
            **program.environment,
        }
        self._children.append(_Child(program, environment, self._sink, self._hurry))

    async def ready(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - part of the promise
        """Wait until the API says that it can serve.

        Raises StartError after `timeout` seconds (None: waits on, and says so now and then).
        """
        host, port = reachable(self.settings.host), self.settings.port
        begun = reported = time.monotonic()
        pause = _POLL_SECONDS
        while (status := await _readiness(host, port)) != b"200":
            now = time.monotonic()
            if timeout is not None and now - begun > timeout:
                raise StartError(f"{self.api_url}/readyz did not say 200 within {timeout:g} s")
            if now - reported > _REPORT_EVERY_SECONDS:
                reported = now
                reason = f"{self.api_url}/readyz does not say 200; the API's own lines say why"
                if self._outside_redis is not None:
                    reason = await redis_fault(self._outside_redis) or reason
                _log.warning("not ready yet", reason=reason)
            pause = _POLL_SECONDS if status is None else min(2 * pause, _POLL_MAX_SECONDS)
            await asyncio.sleep(pause)

    async def stop(self) -> None:
        """Stop everything in order, and wait until it has ended."""
        for order in sorted({child.program.stop_order for child in self._children}):
            await asyncio.gather(
                *(child.stop() for child in self._children if child.program.stop_order == order)
            )
        self._children.clear()
        if self._data is not None:
            (self._data.path / REDIS_URL_FILE).unlink(missing_ok=True)
            self._data.release()
            self._data = None

    def hurry(self) -> None:
        """Make the `stop` under way, or the one to come, kill everything at once."""
        self._hurry.set()

    def pids(self) -> dict[str, int]:
        """The processes that run now, by the names of their programs."""
        return {child.program.name: child.pid for child in self._children if child.pid is not None}

    def _complete_secrets(self, data: DataDirectory) -> None:
        environment = self.settings.to_environ()
        if not self.settings.encryption_keys:
            if embedded.has_data(data) and not (data.path / ENCRYPTION_KEYS_FILE).exists():
                raise StartError(
                    f"the data in {data.path} was encrypted with keys that are neither in "
                    f"{ENCRYPTION_KEYS_FILE} there nor in {PREFIX}ENCRYPTION_KEYS; "
                    "set that to the keys used before"
                )
            environment[f"{PREFIX}ENCRYPTION_KEYS"] = _said(
                data.secret(ENCRYPTION_KEYS_FILE, _new_key)
            )
        if self.settings.admin_token is None:
            environment[f"{PREFIX}ADMIN_TOKEN"] = _said(
                data.secret(ADMIN_TOKEN_FILE, lambda: secrets.token_urlsafe(32))
            )
            self.token_file = data.path / ADMIN_TOKEN_FILE
        try:
            self.settings = Settings.from_env(environment)
        except SettingsError as error:
            raise StartError(f"a secret in {data.path} is not usable: {error}") from error

    async def _start_valkey(self, data: DataDirectory) -> None:
        valkey = embedded.prepare(data)
        child = _Child(
            Program(
                name="valkey",
                argv=valkey.argv,
                stop_order=VALKEY_STOP_ORDER,
                inherit_fds=(data.lock_fd,),
            ),
            _inherited(),
            self._sink,
            self._hurry,
        )
        self._children.append(child)
        await _first_answer(valkey, child)
        data.write_private(REDIS_URL_FILE, valkey.url + "\n")
        self.settings = msgspec.structs.replace(self.settings, redis_url=valkey.url)


async def _first_answer(valkey: EmbeddedValkey, child: _Child) -> None:
    begun = reported = time.monotonic()
    while not await valkey.answers():
        now = time.monotonic()
        if child.failures or now - begun > _FIRST_ANSWER_SECONDS:
            raise StartError(
                f"the embedded Valkey does not start: {valkey.last_words() or 'it said nothing'} "
                f"(log: {valkey.log})"
            )
        if now - reported > _REPORT_EVERY_SECONDS:
            reported = now
            _log.info("the embedded Valkey is still loading its data", log=str(valkey.log))
        await asyncio.sleep(_POLL_SECONDS)


class _Child:
    """A program kept running until it is stopped."""

    def __init__(
        self, program: Program, environment: dict[str, str], sink: Sink, hurry: asyncio.Event
    ) -> None:
        self.program = program
        self.pid: int | None = None
        self.failures = 0  # in a row
        self._environment = environment
        self._sink = sink
        self._hurry = hurry
        self._stopping = asyncio.Event()
        self._task = asyncio.create_task(self._keep_running(), name=f"supervise {program.name}")

    async def stop(self) -> None:
        """Have the program end, by force after its time to drain, and wait until it has."""
        self._stopping.set()
        await self._task

    async def _keep_running(self) -> None:
        while not self._stopping.is_set():
            begun = time.monotonic()
            try:
                ending = await self._run()
            except OSError as error:
                ending = f"cannot be started: {error.strerror}"
            if self._stopping.is_set():
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
            await _either(self._stopping.wait(), asyncio.sleep(delay))

    async def _run(self) -> str:
        """Run the program once, to its end. Returns how it ended."""
        lifeline, hold = os.pipe()
        # A pipe of our own: one of asyncio's would have `wait` wait until it is closed, which
        # a process that the program left behind can put off for ever.
        output, written = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                "/bin/sh",
                "-c",
                _LEASHED,
                "sh",
                str(ORPHAN_SECONDS),
                *self.program.argv,
                stdin=lifeline,
                stdout=written,
                stderr=written,
                env=self._environment,
                pass_fds=self.program.inherit_fds,
                start_new_session=True,  # so that Ctrl-C reaches the supervisor alone
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
            await _either(exited, self._stopping.wait())
            if not exited.done():
                await self._end(process, exited)
            _kill_group(process.pid)  # the watch, and whatever the program left behind
            await asyncio.wait({passing_on}, timeout=_OUTPUT_END_SECONDS)
            passing_on.cancel()
            return _ending(exited.result())
        finally:
            self.pid = None
            os.close(hold)

    async def _end(self, process: asyncio.subprocess.Process, exited: asyncio.Task[int]) -> None:
        if not self._hurry.is_set():
            process.terminate()
            await _either(exited, self._hurry.wait(), asyncio.sleep(self.program.drain_seconds))
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


def _kill_group(pid: int) -> None:
    # EPERM is what macOS answers for a group of which only zombies are left.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


async def _either(*awaitables: Awaitable[object]) -> None:
    """Wait until one of them is done. Coroutines are cancelled then, tasks go on."""
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


def _inherited() -> dict[str, str]:
    return {name: text for name, text in os.environ.items() if not name.startswith(PREFIX)}


def _said(secret: tuple[str, str | None]) -> str:
    text, remark = secret
    if remark is not None:
        _log.info(remark)
    return text


def _new_key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode()


# --- the API's address ------------------------------------------------------------------------


def check_port(host: str, port: int) -> None:
    """Raise StartError, in one line, if nothing can listen on `host` and `port`."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise StartError(f"{PREFIX}HOST {host!r} does not resolve: {error.strerror}") from error
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                # As the API's own socket: connections that linger are no obstacle.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:  # who listens on IPv4 alone is no obstacle either
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise StartError(
                    f"port {port} on {host} is taken; set {PREFIX}PORT to another, or to 0 "
                    "for any free one"
                ) from error
            raise StartError(
                f"nothing can listen on {host} port {port} ({error.strerror}); "
                f"set {PREFIX}HOST and {PREFIX}PORT to what can"
            ) from error


async def _readiness(host: str, port: int) -> bytes | None:
    """The status that /readyz answers, None where nobody answers."""
    request = f"GET /readyz HTTP/1.1\r\nHost: {in_header(host)}\r\nConnection: close\r\n\r\n"
    try:
        async with asyncio.timeout(_READY_REQUEST_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(request.encode())
                return b"".join((await reader.readline()).split()[1:2]) or None
            finally:
                writer.close()
    except OSError:  # TimeoutError is one
        return None


# --- a Redis of somebody else's -----------------------------------------------------------------


async def redis_fault(url: str) -> str | None:
    """Why the Redis at `url` cannot be used, with what to do, in one line without its password;
    None if it can.
    """
    redis = open_async(url)
    try:
        await redis.ping()
        return await Rights(redis).fault()
    except (RedisError, OSError) as error:
        away = not isinstance(error, (AuthenticationError, ResponseError, NotServingError))
        return (
            f"Redis at {read_redis_url(url).shown} {'does not answer' if away else 'refuses us'} "
            f"({_reason(error)}); check {PREFIX}REDIS_URL, or unset it for the embedded Valkey"
        )
    finally:
        await redis.aclose()


def _reason(error: BaseException) -> str:
    """What the system said, where it said anything; else what redis-py did."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and not isinstance(inner, ssl.SSLError):
            if inner.errno is not None and inner.errno > 0:
                return os.strerror(inner.errno)  # asyncio's own text repeats the address
            if inner.strerror:
                return inner.strerror
        inner = inner.__cause__ or inner.__context__
    return str(error) or type(error).__name__


# --- one readable log -------------------------------------------------------------------------

_COLOURS = ("36", "33", "32", "35", "34", "96", "93", "92", "95", "94")
_NAME_WIDTH = len("scheduler")


def console_sink(out: TextIO, *, colour: bool) -> Sink:
    """Lines behind the name of the program that wrote them, each name in its colour."""
    prefixes: dict[str, str] = {}

    def write(name: str, line: str) -> None:
        if name not in prefixes:
            shown = f"{name:{_NAME_WIDTH}} |"
            code = _COLOURS[len(prefixes) % len(_COLOURS)]
            prefixes[name] = f"\x1b[{code}m{shown}\x1b[0m " if colour else f"{shown} "
        _write_line(out, prefixes[name] + line)

    return write


def json_sink(out: TextIO) -> Sink:
    """JSON lines as they are, and other text (a traceback, say) made into such lines."""

    def write(name: str, line: str) -> None:
        if not line.startswith("{"):
            line = json.dumps({"event": line, "component": name})
        _write_line(out, line)

    return write


def _write_line(out: TextIO, line: str) -> None:
    with suppress(OSError):  # the reader of the log has gone; the service goes on
        out.write(line + "\n")
        out.flush()


class _SinkStream(io.TextIOBase):
    """The supervisor's own log, as a stream whose lines go to a sink."""

    def __init__(self, sink: Sink, *, colour: bool) -> None:
        self._sink = sink
        self._colour = colour

    def write(self, text: str) -> int:
        for line in text.splitlines():
            self._sink("up", line)
        return len(text)

    def isatty(self) -> bool:
        return self._colour


# --- the command ------------------------------------------------------------------------------


def up(settings: Settings, programs: Sequence[Program] = PROGRAMS) -> None:
    """Run the service until SIGINT, SIGTERM or SIGHUP; a second one ends it at once.

    The log goes to standard output. Raises StartError, in one line, if it cannot start.
    """
    asyncio.run(_up(settings, programs, sys.stdout))


async def _up(settings: Settings, programs: Sequence[Program], out: TextIO) -> None:
    colour = wants_colour(out)
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not out.isatty())
    settings = msgspec.structs.replace(settings, log_format="json" if as_json else "console")
    sink = json_sink(out) if as_json else console_sink(out, colour=colour)
    stream = cast("TextIO", _SinkStream(sink, colour=colour))
    configure(settings.log_format, settings.log_level, "up", stream=stream)
    supervisor = Supervisor(settings, programs, sink=sink, colour=colour)
    stopping = asyncio.Event()

    def on_signal(name: str) -> None:
        if stopping.is_set():
            supervisor.hurry()
        else:
            _log.info("stopping; once more to end at once", signal=name)
            stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            loop.add_signal_handler(number, on_signal, number.name)
    starting = asyncio.create_task(_start(supervisor, sink, as_json=as_json))
    try:
        await _either(starting, stopping.wait())
        if starting.done():
            starting.result()
        await stopping.wait()
    finally:
        starting.cancel()
        await asyncio.wait({starting})
        await supervisor.stop()
    _log.info("stopped")


async def _start(supervisor: Supervisor, sink: Sink, *, as_json: bool) -> None:
    begun = time.monotonic()
    await supervisor.start()
    await supervisor.ready()
    seconds = round(time.monotonic() - begun, 1)
    addresses = {
        "api": supervisor.api_url,
        "docs": f"{supervisor.api_url}/schema",
        "metrics": f"{supervisor.api_url}/metrics",
        "token_file": str(supervisor.token_file or f"${PREFIX}ADMIN_TOKEN"),
        "try": curl_line(supervisor),
    }
    if as_json:
        _log.info("ready", seconds=seconds, **addresses)
        return
    sink("up", "")
    sink("up", f"Coursewire is ready after {seconds} s. Ctrl-C stops it.")
    for name, address in addresses.items():
        sink("up", f"  {name.replace('_', ' '):11} {address}")
    sink("up", "")


def curl_line(supervisor: Supervisor) -> str:
    """A line to paste that lists the integrations, with the token read from where it is."""
    token = (
        f"$(cat {shlex.quote(str(supervisor.token_file))})"
        if supervisor.token_file is not None
        else f"${PREFIX}ADMIN_TOKEN"
    )
    return f'curl -H "Authorization: Bearer {token}" {supervisor.api_url}/v1/integrations'
