"""What a benchmark polls: a server of its own, one worker's services, one integration."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from service.bootstrap import Services, open_services
from service.clock import now_ms
from service.domain.polling.integration import Credential, Integration, PollRecord
from service.domain.review.guards import Guards
from service.ids import new_id
from service.local.supervisor.supervisor import Supervisor
from service.settings import Settings
from service.storage.redis import keys
from service.storage.scheduling.schedule import ClaimLimit
from workers.context import JobContext
from workers.polling.poll import poll_batch

_CLAIM_MS = 30_000
_GUARDS = Guards()


class Polled(msgspec.Struct, frozen=True):
    """A completed poll: what it says of itself, and the seconds its turns took in this process."""

    record: PollRecord
    cpu: float
    wall: float


class _NoDispatcher:
    """Stands in for enqueueing: the benchmark runs the jobs itself."""

    async def dispatch(self, *_kinds: str, **_options: object) -> int:
        return 0


class Rig:
    """One integration, polled by the same job that a worker would run."""

    def __init__(self, services: Services, integration_id: str) -> None:
        self.services = services
        self.id = integration_id
        self._context = JobContext(services, _NoDispatcher(), asyncio.Event())

    async def poll(self, courses: int, verdict: str) -> Polled:
        """One full poll. Raises AssertionError unless it gave every one of `courses` the
        `verdict`."""
        polled = await self.complete()
        if polled.record.verdicts != {verdict: courses}:
            raise AssertionError(f"not the poll that was to be measured: {polled.record}")
        return polled

    async def complete(self) -> Polled:
        """One full poll, whatever it finds. Raises AssertionError if it fails."""
        asked = await self.services.integrations.request_poll(self.id, "full", now_ms())
        cpu = wall = 0.0
        while True:
            claims = [(self.id, await self._claim())]
            cpu_begun, wall_begun = time.process_time(), time.perf_counter()
            await poll_batch(self._context, claims)
            cpu += time.process_time() - cpu_begun
            wall += time.perf_counter() - wall_begun
            record = await self.services.integrations.get_poll(self.id, asked.id)
            if record.state == "running":
                continue  # a turn has a bounded length
            if record.state != "completed":
                raise AssertionError(f"a poll that failed: {record}")
            return Polled(record, cpu, wall)

    async def baseline(self, courses: int) -> Polled:
        """The silent first full poll."""
        return await self.poll(courses, "created")

    async def full_poll(self, courses: int) -> Polled:
        """A full poll that finds nothing changed."""
        return await self.poll(courses, "unchanged")

    async def _claim(self) -> int:
        await self.services.redis.zadd(keys.due("polls"), {self.id: 0})
        limit = ClaimLimit("polls", "bench", 1, 1)
        (claims,) = await self.services.schedule.claim([limit], _CLAIM_MS)
        if claims.ids != [self.id]:
            raise AssertionError("the integration could not be claimed")
        return claims.token


@asynccontextmanager
async def embedded_server() -> AsyncIterator[Settings]:
    """The settings of a service whose Valkey has just been started, empty, as `up` starts it."""
    with tempfile.TemporaryDirectory(prefix="coursewire-bench-") as directory:
        settings = Settings(data_dir=Path(directory), port=0)
        async with Supervisor(settings, (), sink=lambda *_: None) as running:
            yield running.settings


@asynccontextmanager
async def rig(
    settings: Settings,
    integration_id: str | None = None,
    *,
    base_url: str = "https://api.example/v1",
    api_key: str = "bench-key",
    upstream_id: str = "workday:bench",
    guards: Guards = _GUARDS,
) -> AsyncIterator[Rig]:
    """Services over the server, and the integration, registered if none is named."""
    async with open_services(settings) as services:
        if integration_id is None:
            now = now_ms()
            credential = Credential(
                id=new_id("cred"), name="bench", base_url=base_url, created_at=now, updated_at=now
            )
            await services.credentials.create(credential, api_key)
            integration_id = new_id("int")
            await services.integrations.create(
                Integration(
                    id=integration_id,
                    name="bench",
                    upstream_id=upstream_id,
                    credential_id=credential.id,
                    created_at=now,
                    updated_at=now,
                    guards=guards,
                )
            )
        yield Rig(services, integration_id)
