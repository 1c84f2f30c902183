"""The supervisor: starts the programs and an embedded Valkey, waits for the API, stops them all."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from service.domain.errors import StartError
from service.domain.hosts import in_url, reachable
from service.ids import new_token
from service.local import embedded_valkey as embedded
from service.local.data_directory import API_URL_FILE, REDIS_URL_FILE, DataDirectory
from service.local.embedded_valkey import EmbeddedValkey, free_port
from service.local.supervisor.api_address import check_port, readiness
from service.local.supervisor.child import Child, Ending
from service.local.supervisor.made_secrets import complete_secrets
from service.local.supervisor.output import Sink
from service.local.supervisor.outside_redis import redis_fault
from service.local.supervisor.programs import PROGRAMS, VALKEY_STOP_ORDER, Program
from service.logs import get_logger
from service.settings import PREFIX, Settings
from service.storage.redis.server_info import check_server

_POLL_SECONDS = 0.05
_POLL_MAX_SECONDS = 0.5  # until the API answers, because it logs each error
REPORT_EVERY_SECONDS = 5.0  # between reports while the service is not ready
_FIRST_ANSWER_SECONDS = 600.0  # a large append-only file takes time to load

_log = get_logger("supervisor")


class Supervisor:
    """Runs the service's programs, and an embedded Valkey if the settings name no Redis.

    Call `start`, `ready` and `stop` in this order; `async with` calls the first and the last.
    `settings` are complete after the start: secrets, port and `redis_url`. `sink` gets every line
    of the programs; `colour` turns their colours on.
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
        self.token_file: Path | None = None  # None if the settings contain the token
        self._programs = programs
        self._sink = sink
        self._colour = colour
        self._data: DataDirectory | None = None
        self.children: list[Child] = []
        self._outside_redis: str | None = None  # None for the embedded Valkey
        self._ending = Ending()

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
        # Before the port: a running service holds both, and the error about the directory names it.
        self._data = DataDirectory(self.settings.data_dir)
        try:
            port = self.settings.port or free_port(self.settings.host)
            check_port(self.settings.host, port)
            self.settings = msgspec.structs.replace(
                self.settings,
                port=port,
                data_dir=self._data.path,
                instance=self.settings.instance or new_token(),
            )
            self.settings, self.token_file = complete_secrets(self.settings, self._data)
            if self.settings.redis_url is None:
                await self._start_valkey(self._data)
            else:
                self._outside_redis = self.settings.redis_url
                await check_server(self._outside_redis)
                if (fault := await redis_fault(self._outside_redis)) is not None:
                    _log.warning(fault)
            for program in self._programs:
                self.add(program)
            self._data.write_private(API_URL_FILE, self.api_url + "\n")
        except BaseException:
            await self.stop()
            raise

    def add(self, program: Program) -> None:
        """Start one more program, restart it when it ends, and stop it with the others."""
        environment = {
            **_inherited(),
            **self.settings.to_environ(),
            **({"FORCE_COLOR": "1"} if self._colour else {}),
            "PYTHONUNBUFFERED": "1",
            **program.environment,
        }
        self.children.append(Child(program, environment, self._sink, self._ending))

    async def ready(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - part of the promise
        """Wait until the API is ready.

        Raises StartError after `timeout` seconds (None: keeps waiting, and logs the reason).
        """
        host, port = reachable(self.settings.host), self.settings.port
        begun = reported = time.monotonic()
        pause = _POLL_SECONDS
        while (status := await readiness(host, port)) != b"200":
            now = time.monotonic()
            if timeout is not None and now - begun > timeout:
                raise StartError(f"{self.api_url}/readyz did not return 200 within {timeout:g} s")
            if now - reported > REPORT_EVERY_SECONDS:
                reported = now
                reason = f"{self.api_url}/readyz does not return 200; the API's log has the reason"
                if self._outside_redis is not None:
                    reason = await redis_fault(self._outside_redis) or reason
                _log.warning("not ready yet", reason=reason)
            pause = _POLL_SECONDS if status is None else min(2 * pause, _POLL_MAX_SECONDS)
            await asyncio.sleep(pause)

    async def stop(self) -> None:
        """Stop everything in order, and wait until it has ended."""
        self._ending.begun.set()
        for order in sorted({child.program.stop_order for child in self.children}):
            await asyncio.gather(
                *(child.stop() for child in self.children if child.program.stop_order == order)
            )
        self.children.clear()
        if self._data is not None:
            for file in (API_URL_FILE, REDIS_URL_FILE):
                (self._data.path / file).unlink(missing_ok=True)
            self._data.release()
            self._data = None

    def hurry(self) -> None:
        """Make the present or next `stop` kill everything at once."""
        self._ending.hurried.set()

    def pids(self) -> dict[str, int]:
        """The running processes, by the names of their programs."""
        return {child.program.name: child.pid for child in self.children if child.pid is not None}

    async def _start_valkey(self, data: DataDirectory) -> None:
        valkey = embedded.prepare(data)
        child = Child(
            Program(
                name="valkey",
                argv=valkey.argv,
                stop_order=VALKEY_STOP_ORDER,
                stop_signal=signal.SIGINT,
                inherit_fds=(data.lock_fd,),
            ),
            _inherited(),
            self._sink,
            self._ending,
        )
        self.children.append(child)
        await _first_answer(valkey, child)
        data.write_private(REDIS_URL_FILE, valkey.url + "\n")
        self.settings = msgspec.structs.replace(self.settings, redis_url=valkey.url)


async def _first_answer(valkey: EmbeddedValkey, child: Child) -> None:
    begun = reported = time.monotonic()
    while not await valkey.answers():
        now = time.monotonic()
        if child.failures or now - begun > _FIRST_ANSWER_SECONDS:
            raise StartError(
                f"the embedded Valkey does not start: {valkey.last_words() or 'no output'} "
                f"(log: {valkey.log})"
            )
        if now - reported > REPORT_EVERY_SECONDS:
            reported = now
            _log.info("embedded Valkey is loading its data", log=str(valkey.log))
        await asyncio.sleep(_POLL_SECONDS)


def _inherited() -> dict[str, str]:
    return {name: text for name, text in os.environ.items() if not name.startswith(PREFIX)}
