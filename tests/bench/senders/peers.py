"""Outpost and Svix, each one process of its own program and the stores that it needs."""

from __future__ import annotations

import os
import re
import signal
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from tests.bench.senders import stores
from tests.bench.senders.programs import run
from tests.bench.senders.systems import Published
from tests.conftest import free_port

_KEY = "key-of-this-benchmark-000000000"


class Peer(Published):
    """A program whose path the environment gives, stores, and one process of the sender."""

    variable: ClassVar[str]
    rabbit: ClassVar[bool] = False

    @classmethod
    def lacking(cls) -> list[str]:
        """What this machine lacks of it."""
        given = os.environ.get(cls.variable, "")
        found = Path(given).is_file() and os.access(given, os.X_OK)
        missing = (
            []
            if found
            else [
                f"{cls.variable} names no program: {given}"
                if given
                else f"{cls.variable} is not set"
            ]
        )
        return missing + [f"{one} is not installed" for one in stores.lacking(rabbit=cls.rabbit)]

    async def start(self) -> None:
        await self.start_publisher()
        self.stores = stores.Stores(self.directory, self.stack)
        self.binary = os.environ[self.variable]
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}/api/v1"
        server, address = await self.stores.postgres()
        cache, cache_port = await self.stores.valkey()
        self.meter.programs.update(postgres=server, valkey=cache)
        self.environment = await self.configured(address, cache_port, self._port)
        await self.prepare()
        self.http.headers["authorization"] = f"Bearer {self.token}"
        await self.start_sender()

    def targets(self) -> list[str]:
        return [f"127.0.0.1:{self._port}"]

    async def kill(self) -> None:
        sender = self.meter.programs["sender"]
        self.meter.about_to_kill(sender.pids())
        await sender.stop(signal.SIGKILL)
        await self.start_sender()

    @abstractmethod
    async def configured(self, database: str, cache_port: int, port: int) -> dict[str, str]:
        """The environment of the sender."""

    @abstractmethod
    async def prepare(self) -> None:
        """Brings the database into its form."""

    @abstractmethod
    async def start_sender(self) -> None:
        """Starts the sender and waits until it answers."""


class Outpost(Peer):
    """Hookdeck's Outpost: API, delivery and log in one process, with RabbitMQ."""

    name = "Outpost"
    variable = "OUTPOST_BIN"
    rabbit = True
    path = "/api/v1/publish"
    envelope = ('{"id":"{id}","tenant_id":"bench","topic":"course.updated","data":', "}")
    token = _KEY
    best: ClassVar[Mapping[str, str]] = {
        "DELIVERY_MAX_CONCURRENCY": "64",
        "LOG_MAX_CONCURRENCY": "8",
        "PUBLISH_MAX_CONCURRENCY": "8",
    }

    @classmethod
    def lacking(cls) -> list[str]:
        missing = super().lacking()
        if not missing and not Path(os.environ[cls.variable]).with_name("outpost-server").is_file():
            missing.append("outpost-server does not lie beside OUTPOST_BIN")
        return missing

    async def configured(self, database: str, cache_port: int, port: int) -> dict[str, str]:
        nodes, rabbit_port = await self.stores.rabbit()
        self.meter.programs.update(nodes)
        return {
            "API_PORT": str(port),
            "API_KEY": _KEY,
            "API_JWT_SECRET": _KEY,
            "AES_ENCRYPTION_SECRET": _KEY,
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(cache_port),
            "REDIS_DATABASE": "0",
            "REDIS_PASSWORD": "",
            "RABBITMQ_SERVER_URL": f"amqp://guest:guest@127.0.0.1:{rabbit_port}",
            "POSTGRES_URL": f"postgres://{database}?sslmode=disable",
            "TOPICS": "course.updated",
            "DISABLE_TELEMETRY": "true",
            "PORTAL_REFERER_URL": "http://127.0.0.1/",
            "MAX_DESTINATIONS_PER_TENANT": "1000",
            "DESTINATIONS_WEBHOOK_MODE": "standard",
            **({"RETRY_SCHEDULE": ",".join(map(str, self.retries))} if self.retries else {}),
            **self.settings,
        }

    async def prepare(self) -> None:
        await run(
            self.binary, "migrate", "apply", "--yes",
            log=self.directory / "migrate.log", environment=self.environment,
        )  # fmt: skip

    async def start_sender(self) -> None:
        sender = await self.run("sender", self.binary, "serve", environment=self.environment)
        await self.answers(f"{self.url}/healthz", sender)

    async def subscribe(self, urls: Sequence[str]) -> None:
        tenant = f"{self.url}/tenants/bench"
        await self.call("PUT", tenant)
        for url in urls:
            await self.call(
                "POST",
                f"{tenant}/destinations",
                {"type": "webhook", "topics": ["*"], "config": {"url": url}},
            )


class Svix(Peer):
    """Svix: API and worker in one process."""

    name = "Svix"
    variable = "SVIX_BIN"
    stored = 409
    envelope = ('{"eventType":"course.updated","eventId":"{id}","payload":', "}")
    best: ClassVar[Mapping[str, str]] = {
        "SVIX_DB_POOL_MAX_SIZE": "10",
        "SVIX_WORKER_MAX_TASKS": "50",
    }

    _application = ""

    async def configured(self, database: str, cache_port: int, port: int) -> dict[str, str]:
        return {
            "SVIX_LISTEN_ADDRESS": f"127.0.0.1:{port}",
            "SVIX_JWT_SECRET": _KEY,
            "SVIX_DB_DSN": f"postgresql://{database}",
            "SVIX_REDIS_DSN": f"redis://127.0.0.1:{cache_port}",
            "SVIX_WHITELIST_SUBNETS": "[127.0.0.0/8]",
            "SVIX_WHITELABEL_HEADERS": "true",
            **({"SVIX_RETRY_SCHEDULE": str(self.retries)} if self.retries else {}),
            **self.settings,
        }

    async def prepare(self) -> None:
        log = self.directory / "migrate.log"
        await run(self.binary, "migrate", log=log, environment=self.environment)
        said = await run(
            self.binary, "jwt", "generate",
            log=self.directory / "jwt.log", environment=self.environment,
        )  # fmt: skip
        found = re.search(r"eyJ[\w.-]+", said)
        assert found is not None, "svix-server made no token"
        self.token = found.group()

    async def start_sender(self) -> None:
        sender = await self.run("sender", self.binary, environment=self.environment)
        await self.answers(f"{self.url}/health/ping/", sender)

    async def subscribe(self, urls: Sequence[str]) -> None:
        if not self._application:
            made = await self.call("POST", f"{self.url}/app/", {"name": "bench"})
            self._application = made["id"]
        for url in urls:
            endpoints = f"{self.url}/app/{self._application}/endpoint/"
            await self.call("POST", endpoints, {"url": url, "version": 1})

    @property
    def path(self) -> str:  # type: ignore[override]
        return f"/api/v1/app/{self._application}/msg/?with_content=false"
