"""The whole service as real processes that a test may kill and start again, one by one."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from redis.asyncio import Redis
from redis.exceptions import RedisError
from standardwebhooks import Webhook

from service.local.embedded_valkey import binary_path
from service.storage.redis.rights import acl_rules
from tests.conftest import PASSWORD, USER, as_user, free_port, peer, refused_to_the_service

ADMIN_TOKEN = "e2e-admin-token-of-sufficient-length"
UPSTREAM_ID = "workday:e2e"
SANDBOX_KEY = "sandbox-key"


async def until(condition: Callable[[], Awaitable[Any] | Any], *, seconds: float, what: str) -> Any:
    """Waits until `condition` holds and returns what it gave."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if isinstance(result, Awaitable):
            result = await result
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        await asyncio.sleep(0.02)


Victim = str | Callable[[], Awaitable[None]]  # a process to be killed, or what to do instead


class Process:
    """One child process with its log in a file."""

    def __init__(self, name: str, argv: list[str], env: dict[str, str], directory: Path) -> None:
        self.name = name
        self.argv = argv
        self.environment = env
        self._directory = directory
        self._log = directory / f"{name}.log"
        self._child: subprocess.Popen[bytes] | None = None

    def like(self, name: str, *more: str, **variables: str) -> Process:
        """Another that differs in its last arguments and some variables."""
        return Process(name, [*self.argv, *more], self.environment | variables, self._directory)

    def start(self, *, own_group: bool = False) -> None:
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(
                self.argv,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=own_group,
            )

    def send(self, number: signal.Signals) -> None:
        assert self._child is not None
        self._child.send_signal(number)

    def kill(self) -> None:
        assert self._child is not None
        self._child.send_signal(signal.SIGKILL)
        self._child.wait(10)

    def stop(self, seconds: float = 40) -> int:
        assert self._child is not None
        self._child.send_signal(signal.SIGTERM)
        try:
            return self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            self._child.send_signal(signal.SIGABRT)  # has Python say where it stands
            self._child.wait(10)
            raise AssertionError(f"{self.name} does not end\n{self.log()[-5000:]}") from None

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""


class Subscriber:
    """A receiver that verifies every push with the official library and keeps it."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []  # first receipts, in order
        self.bodies: dict[str, bytes] = {}
        self.duplicates = 0
        self.conflicts: list[str] = []  # one id with different bytes
        self.secret = ""
        self.url = ""
        self.down = False  # breaks every connection off

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self.down and request.transport is not None:
            request.transport.abort()
            return web.Response(status=500)
        Webhook(self.secret).verify(body, dict(request.headers))
        identifier = request.headers["webhook-id"]
        if identifier in self.bodies:
            self.duplicates += 1
            if self.bodies[identifier] != body:
                self.conflicts.append(identifier)
        else:
            self.bodies[identifier] = body
            self.received.append(json.loads(body))
        return web.Response(status=204)

    def types(self, start: int = 0) -> Counter[str]:
        return Counter(event["type"] for event in self.received[start:])

    def check_order(self) -> None:
        """Sequences rise per course, and each links to the one before."""
        last: dict[str, int] = {}
        for event in self.received:
            data = event["data"]
            if event["type"].startswith("course."):
                assert data["previous_sequence"] == last.get(data["course_id"]), data["course_id"]
                assert data["sequence"] > (data["previous_sequence"] or 0)
                last[data["course_id"]] = data["sequence"]


class House:
    """Valkey, sandbox, API, worker and scheduler, each a process of its own."""

    def __init__(self, directory: Path, courses: int, **variables: str) -> None:
        self.directory = directory
        self._valkey_port = free_port()
        self.redis_url = f"redis://127.0.0.1:{self._valkey_port}/0"  # for who may do anything
        self.sandbox_port = free_port()
        self.api_port = free_port()
        self.valkey_directory = directory / "valkey"
        self.valkey_directory.mkdir()
        key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        env = {name: value for name, value in os.environ.items() if "COURSEWIRE" not in name}
        env |= {
            "COURSEWIRE_REDIS_URL": as_user(self.redis_url),
            "COURSEWIRE_PORT": str(self.api_port),
            "COURSEWIRE_ADMIN_TOKEN": ADMIN_TOKEN,
            "COURSEWIRE_ENCRYPTION_KEYS": key,
            "COURSEWIRE_ALLOWED_TARGETS": "127.0.0.0/8",
            "COURSEWIRE_DATA_DIR": str(directory / "data"),
            "COURSEWIRE_LOG_FORMAT": "json",
            "PYTHONUNBUFFERED": "1",
            "PYTHONFAULTHANDLER": "1",
        } | variables
        coursewire = [sys.executable, "-m", "service.cli"]
        sandbox = [
            *("sandbox", "--port", str(self.sandbox_port), "--api-key", SANDBOX_KEY),
            *("--integration", UPSTREAM_ID, "--courses", str(courses), "--quiet"),
        ]
        valkey = [
            str(binary_path()),
            *("--port", str(self._valkey_port), "--bind", "127.0.0.1"),
            *("--dir", str(self.valkey_directory), "--save", ""),
            *("--appendonly", "yes", "--appendfsync", "everysec"),
            *("--user", USER, "on", f">{PASSWORD}", *acl_rules()),
        ]
        self.processes = {
            "valkey": Process("valkey", valkey, env, directory),
            "sandbox": Process("sandbox", [*coursewire, *sandbox], env, directory),
            "api": Process("api", [*coursewire, "api"], env, directory),
            "worker": Process("worker", [*coursewire, "worker"], env, directory),
            "scheduler": Process("scheduler", [*coursewire, "scheduler"], env, directory),
        }
        self.api = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.api_port}",
            headers={"Authorization": f"Bearer {ADMIN_TOKEN}"},
            timeout=20,
        )
        self.sandbox = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.sandbox_port}", timeout=60
        )
        self.integration_id = ""
        self.subscription_id = ""

    # --- processes -----------------------------------------------------------------------

    async def start(self, *names: str) -> None:
        for name in names or self.processes:
            self.processes[name].start()
        await self.ready()

    async def ready(self) -> None:
        await until(self._answers, seconds=30, what=f"the house stands\n{self.logs()}")

    async def _answers(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            api = await self.api.get("/readyz")
            sandbox = await self.sandbox.get("/control/integrations")
            return api.status_code == 200 and sandbox.status_code == 200
        return False

    async def restart(self, name: str) -> None:
        """kill -9, then started again."""
        self.processes[name].kill()
        await self.start(name)

    def _append_only_file(self) -> Path:
        (path,) = (self.valkey_directory / "appendonlydir").glob("*.incr.aof")
        return path

    def append_only_size(self) -> int:
        return self._append_only_file().stat().st_size

    def cut_append_only_file(self, size: int) -> None:
        """What a machine that crashed has of the file: its beginning."""
        os.truncate(self._append_only_file(), size)

    async def close(self) -> None:
        refused = await self._refused()
        for process in reversed(self.processes.values()):
            if process.running:
                process.kill()
        await self.api.aclose()
        await self.sandbox.aclose()
        assert refused == set()

    async def _refused(self) -> set[tuple[str, str]]:
        """What the service asked of Redis since that was started, and may not."""
        with contextlib.suppress(RedisError, OSError):
            async with Redis.from_url(self.redis_url, socket_timeout=5) as redis:
                return refused_to_the_service(await redis.acl_log())
        return set()

    def logs(self) -> str:
        return "\n".join(
            f"--- {name}\n{process.log()[-3000:]}" for name, process in self.processes.items()
        )

    # --- what an integration engineer does -----------------------------------------------

    async def call(self, method: str, path: str, **content: Any) -> Any:
        answer = await self.api.request(method, path, **content)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    async def attempt(self, method: str, path: str, **content: Any) -> Any:
        """What the API answers; None if it, or Redis, is away."""
        try:
            answer = await self.api.request(method, path, **content)
        except httpx.HTTPError:
            return None
        return answer.json() if answer.is_success and answer.content else None

    async def subscribe(self, subscriber: Subscriber, **fields: Any) -> None:
        created = await self.call(
            "POST", "/v1/subscriptions", json={"url": subscriber.url, **fields}
        )
        subscriber.secret = created["secret"]
        self.subscription_id = created["id"]

    async def register(self, **fields: Any) -> None:
        created = await self.call(
            "POST",
            "/v1/integrations",
            json={
                "name": "e2e",
                "upstream_id": UPSTREAM_ID,
                "base_url": f"http://127.0.0.1:{self.sandbox_port}/v1",
                "api_key": SANDBOX_KEY,
                **fields,
            },
        )
        self.integration_id = created["id"]

    async def poll(
        self, kind: str, *, victim: Victim | None = None, seconds: float = 90
    ) -> dict[str, Any]:
        """Asks for a poll, kills `victim` as soon as that is granted, or does what else it says,
        and waits until the poll has completed."""
        path = f"/v1/integrations/{self.integration_id}/polls"
        poll = await self.call("POST", path, json={"kind": kind})
        if isinstance(victim, str):
            await self.restart(victim)
        elif victim is not None:
            await victim()

        async def completed() -> dict[str, Any] | None:
            found = await self.attempt("GET", f"{path}/{poll['id']}")
            return found if found and found["state"] in ("completed", "failed") else None

        return await until(completed, seconds=seconds, what=f"{kind} poll\n{self.logs()}")

    async def change(self, *changes: dict[str, Any]) -> list[dict[str, Any]]:
        """Makes the sandbox change courses; returns its log of what it did."""
        answer = await self.sandbox.post(
            f"/control/integrations/{UPSTREAM_ID}/changes", json=list(changes)
        )
        assert answer.is_success, answer.text
        return answer.json()

    async def drained(self, seconds: float = 60) -> None:
        """Waits until nothing is pending on the outbox."""

        async def empty() -> bool:
            found = await self.attempt("GET", f"/v1/subscriptions/{self.subscription_id}")
            return found is not None and found["pending"] == 0

        await until(empty, seconds=seconds, what=f"an empty outbox\n{self.logs()}")


@pytest.fixture
async def subscriber() -> AsyncIterator[Subscriber]:
    subscriber = Subscriber()
    async with peer(web.post("/hook", subscriber.handle)) as url:
        subscriber.url = f"{url}/hook"
        yield subscriber


@pytest.fixture
async def build_house(tmp_path: Path) -> AsyncIterator[Callable[[int], Awaitable[House]]]:
    houses: list[House] = []

    async def build(courses: int) -> House:
        house = House(tmp_path, courses)
        houses.append(house)
        await house.start()
        return house

    yield build
    for house in houses:
        await house.close()
