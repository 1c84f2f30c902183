"""What is measured: Coursewire, and what the systems have in common."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, ClassVar

import httpx

from tests.bench.processes import ROOT, Child, child
from tests.bench.senders import traffic
from tests.bench.senders.programs import Meter, Program, program
from tests.bench.senders.traffic import Mark, Publication
from tests.conftest import free_port

_RETRY_SECONDS = 1  # where a receiver fails some
_RETRIES = 8
_READY_SECONDS = 60.0
_LOOK_SECONDS = 0.01
_REQUEST_SECONDS = 30.0


class System(ABC):
    """A sender of webhooks with all that it needs, freshly started in an empty directory.

    `best` are the settings that proved best for it on two cores. `retries` are the seconds before
    each retry; none leaves the system its own.
    """

    name: ClassVar[str]
    best: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self, directory: Path, *, best: bool, quick_retries: bool, patience: float
    ) -> None:
        self.directory = directory
        self.settings = dict(self.best) if best else {}
        self.retries = [_RETRY_SECONDS] * _RETRIES if quick_retries else []
        self.patience = patience
        self.meter = Meter()
        self.stack = AsyncExitStack()

    @classmethod
    def lacking(cls) -> list[str]:
        """What this machine lacks of it."""
        return []

    async def __aenter__(self) -> System:
        try:
            self.http = await self.stack.enter_async_context(
                httpx.AsyncClient(timeout=_REQUEST_SECONDS, trust_env=False)
            )
            await self.start()
        except BaseException:
            await self.stack.aclose()
            raise
        return self

    async def __aexit__(self, *_exc_info: object) -> None:
        await self.stack.aclose()

    @abstractmethod
    async def start(self) -> None:
        """Starts everything."""

    @abstractmethod
    async def subscribe(self, urls: Sequence[str]) -> None:
        """Has every event that comes sent to the URLs."""

    @abstractmethod
    async def publish(self, batches: list[list[Mark]], pace: float) -> Mapping[Mark, Publication]:
        """Has events accepted, a batch every `pace` seconds; what a publisher noted."""

    @abstractmethod
    async def kill(self) -> None:
        """Kills the sender with SIGKILL and has it started again."""

    # --- for the systems ----------------------------------------------------------------------

    async def run(self, name: str, *command: str | Path, **more: Any) -> Program:
        """A program that counts as the system's."""
        started = await self.stack.enter_async_context(
            program(*command, log=self.directory / f"{name}.log", **more)
        )
        self.meter.programs[name] = started
        return started

    async def call(self, method: str, url: str, body: Any = None) -> Any:
        answer = await self.http.request(method, url, json=body)
        if answer.is_error:
            raise AssertionError(f"{self.name}: {method} {url}: {answer.status_code} {answer.text}")
        return answer.json() if answer.content else None

    async def answers(self, url: str, by: Program) -> None:
        """Waits until a request succeeds."""
        until = time.monotonic() + _READY_SECONDS
        while True:
            by.check()
            try:
                if (await self.http.get(url)).is_success:
                    return
            except httpx.TransportError:
                pass
            if time.monotonic() > until:
                raise AssertionError(f"{self.name} does not become ready")
            await asyncio.sleep(_LOOK_SECONDS)


class Coursewire(System):
    """`coursewire up`: the events are changes that a requested delta poll finds upstream."""

    name = "Coursewire"
    best: ClassVar[Mapping[str, str]] = {"max_concurrency": "64"}

    async def start(self) -> None:
        self._upstream = await self.stack.enter_async_context(
            child("tests.bench.senders.upstream", "--objects", str(traffic.OBJECTS))
        )
        upstream = f"http://127.0.0.1:{await self._upstream.hear()}/v1"
        port, data = free_port(), self.directory / "data"
        self._url = f"http://127.0.0.1:{port}/v1"
        service = await self.run(
            "coursewire", sys.executable, "-m", "service.cli", "up",
            directory=ROOT,
            environment={
                "COURSEWIRE_DATA_DIR": str(data),
                "COURSEWIRE_PORT": str(port),
                "COURSEWIRE_ALLOWED_TARGETS": "127.0.0.0/8",
            },
        )  # fmt: skip
        await self.answers(f"http://127.0.0.1:{port}/readyz", service)
        token = (data / "admin-token").read_text().strip()
        self.http.headers["authorization"] = f"Bearer {token}"
        integration = await self.call(
            "POST",
            f"{self._url}/integrations",
            {
                "name": "bench",
                "upstream_id": "workday:bench",
                "base_url": upstream,
                "api_key": "bench-key",
                "delta_interval_seconds": 86_400,
                "full_interval_seconds": 1_000_000,
                "guards": {"changed_share": 1},
            },
        )
        self._integration = f"{self._url}/integrations/{integration['id']}"
        await self._until(self._integration, "active")

    async def subscribe(self, urls: Sequence[str]) -> None:
        options: dict[str, Any] = {name: int(value) for name, value in self.settings.items()}
        if self.retries:
            options["retry_schedule_seconds"] = self.retries
        for url in urls:
            await self.call("POST", f"{self._url}/subscriptions", {"url": url, **options})

    async def publish(self, batches: list[list[Mark]], pace: float) -> Mapping[Mark, Publication]:
        begun = time.monotonic()
        for number, batch in enumerate(batches):
            await asyncio.sleep(max(0.0, begun + number * pace - time.monotonic()))
            await self._upstream.ask(batch)
            poll = await self.call("POST", f"{self._integration}/polls", {"kind": "delta"})
            await self._until(f"{self._integration}/polls/{poll['id']}", "completed")
        return {}

    async def kill(self) -> None:
        workers = [pid for pid in self.meter.pids() if "workers.worker" in _command(pid)]
        assert workers, "no worker is running"
        for pid in workers:  # the supervisor starts another, and counts what this one took
            os.kill(pid, signal.SIGKILL)

    async def _until(self, url: str, state: str) -> None:
        until = time.monotonic() + self.patience
        while (found := await self.call("GET", url))["state"] != state:
            if found["state"] == "failed" or time.monotonic() > until:
                raise AssertionError(f"not {state}: {found}")
            await asyncio.sleep(_LOOK_SECONDS)


class Published(System):
    """A system that events are published to, each by a request."""

    path: ClassVar[str]
    envelope: ClassVar[tuple[str, str]]
    token: str = ""
    stored: ClassVar[int] = 0  # the status for an event whose id it has

    async def start_publisher(self) -> None:
        self.publisher: Child = await self.stack.enter_async_context(
            child("tests.bench.senders.publisher")
        )
        await self.publisher.hear()
        self._loads = 0

    @abstractmethod
    def targets(self) -> list[str]:
        """Where events are published."""

    async def publish(self, batches: list[list[Mark]], pace: float) -> Mapping[Mark, Publication]:
        self._loads += 1
        into = self.directory / f"published-{self._loads}"
        answer = await self.publisher.ask(
            {
                "targets": self.targets(),
                "path": self.path,
                "token": self.token,
                "stored": self.stored,
                "envelope": self.envelope,
                "run": f"load{self._loads}",
                "batches": batches,
                "pace": pace,
                "patience": self.patience,
                "into": str(into),
            }
        )
        if "refused" in answer:
            raise AssertionError(f"{self.name}: {answer['refused']}")
        published = traffic.read(into, Publication)
        return {one.mark: one for one in published}


class Direct(Published):
    """No sender: the publisher posts to the receivers, which shows what the two can do."""

    name = "publisher to receiver"
    path = "/"
    envelope = ("", "")

    async def start(self) -> None:
        await self.start_publisher()

    async def subscribe(self, urls: Sequence[str]) -> None:
        self._targets = [re.sub(r"^http://|/$", "", url) for url in urls]

    def targets(self) -> list[str]:
        return self._targets

    async def kill(self) -> None:
        """There is no sender to kill."""


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
