"""How long healthy subscribers wait for events while others never answer.

One worker process, from the commit of an event to its receipt, with and without dead subscribers
in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from redis.asyncio import Redis

from service.bootstrap import Services, open_services
from service.domain.fingerprint import Fingerprint
from service.domain.subscriptions import Lane, Rendering, Subscription
from service.settings import Settings
from service.storage import keys
from service.storage.catalogue import Batch, Change, NewEvent, Progress
from service.storage.connections import open_sync
from service.storage.ids import new_id
from service.storage.subscriptions import new_secret
from tests.bench import report
from tests.conftest import ValkeyServer, free_port
from workers.dispatch import Dispatcher

AIM = 1.5  # times the latency without dead subscribers
SETTLE_SECONDS = 20.0  # after the last event, for what is on its way
FINGERPRINT = Fingerprint(
    deleted=False, raw=bytes(16), paths=bytes(95), remote_id="32", origin_id=None
)
BODY = json.dumps({"id": "course", "title": "A course", "text": "x" * 1000}).encode()


class Receipts:
    """When each event arrived where: phase -> latencies in ms."""

    def __init__(self) -> None:
        self.latencies: dict[str, list[float]] = defaultdict(list)
        self._arrival = asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        received = time.time()
        event = json.loads(await request.read())
        detected = datetime.fromisoformat(event["timestamp"]).timestamp()
        phase = event["data"]["course_id"].partition("-")[0]
        self.latencies[phase].append((received - detected) * 1000)
        self._arrival.set()
        return web.Response(status=204)

    async def hold(self, name: str, expected: int) -> None:
        """Waits for what is on its way."""
        until = time.monotonic() + SETTLE_SECONDS
        while len(self.latencies[name]) < expected and time.monotonic() < until:
            await self._arrived(until - time.monotonic())

    async def _arrived(self, seconds: float) -> None:
        self._arrival.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._arrival.wait(), seconds)


class NeverAnswers(asyncio.Protocol):
    """Takes connections and says nothing."""


class Source:
    """Commits events as a walk does, and has the lanes dispatched at once."""

    def __init__(self, services: Services, dispatcher: Dispatcher) -> None:
        self._services = services
        self._dispatcher = dispatcher
        self._step = b""

    async def start(self) -> None:
        redis = self._services.redis
        await redis.hset(keys.integration("int_bench"), "epoch", "ep")
        await redis.zadd(keys.claimed("walks"), {"int_bench": 9e15})
        lease = await self._services.leases.take(
            "walks", "int_bench", 9_000_000_000_000_000, 3_600_000
        )
        assert lease is not None
        self._lease = lease

    async def commit(self, course_id: str, subscriptions: Sequence[str]) -> None:
        step = b"%d" % (int(self._step or b"0") + 1)
        facts = {
            "integration_id": "int_bench",
            "upstream_id": "bench:1",
            "external_id": None,
            "labels": {},
            "course_id": course_id,
            "remote_id": "32",
            "origin_id": None,
            "changed": [],
            "reason": None,
            "evidence": None,
            "initial": False,
            "detected_by": "delta",
        }
        version = int(await self._services.redis.get(keys.SUBSCRIPTIONS_VERSION) or 0)
        await self._services.catalogue.commit(
            self._lease,
            epoch="ep",
            walk_id="walk",
            subscriptions_version=version,
            progress=Progress(self._step, step),
            batch=Batch(
                changes=[
                    Change(
                        course_id=course_id,
                        fingerprint=FINGERPRINT,
                        event=NewEvent(
                            type="course.updated",
                            facts=msgspec.json.encode(facts),
                            body=BODY,
                            order_key=course_id,
                            lanes=tuple(Lane(one, Rendering.FULL) for one in subscriptions),
                        ),
                    )
                ]
            ),
            increments=Counter(),
        )
        self._step = step
        await self._dispatcher.dispatch("lanes")


async def subscribe(services: Services, url: str) -> str:
    subscription = Subscription(id=new_id("sub"), created_at=1, updated_at=1, url=url)
    await services.subscriptions.create(subscription, [new_secret()], {})
    return subscription.id


async def phase(
    source: Source, name: str, lanes: Sequence[str], seconds: float, rate: float
) -> None:
    begun = time.monotonic()
    for number in range(int(seconds * rate)):
        await asyncio.sleep(max(0.0, begun + number / rate - time.monotonic()))
        await source.commit(f"{name}-{number}", lanes)


async def measure(options: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    receipts, loop = Receipts(), asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        services = await stack.enter_async_context(open_services(settings))
        connection = stack.enter_context(open_sync(settings.require_redis_url()))
        source = Source(services, Dispatcher(services.schedule, connection))
        await source.start()
        healthy, dead = [], []
        for _ in range(options.healthy):
            listener = socket.create_server(("127.0.0.1", 0), backlog=128)
            application = web.Application()
            application.router.add_post("/", receipts.handle)
            runner = web.AppRunner(application, access_log=None)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.SockSite(runner, listener).start()
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            healthy.append(await subscribe(services, url))
        for _ in range(options.dead):
            server = await loop.create_server(NeverAnswers, "127.0.0.1", 0)
            stack.callback(server.close)
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            dead.append(await subscribe(services, url))
        warm = options.rate * 2
        await phase(source, "warm", healthy, 2, options.rate)
        await receipts.hold("warm", int(warm) * len(healthy))
        for name, lanes in (("without", healthy), ("with", [*healthy, *dead])):
            await phase(source, name, lanes, options.seconds, options.rate)
            await receipts.hold(name, int(options.seconds * options.rate) * len(healthy))
    expected = int(options.seconds * options.rate) * len(healthy)
    without = figures(receipts.latencies["without"], expected)
    result: dict[str, Any] = {
        "healthy": options.healthy,
        "dead": options.dead,
        "events_per_second": options.rate,
        "without": without,
        "with": figures(receipts.latencies["with"], expected),
    }
    result["p99_ratio"] = round(result["with"]["p99_ms"] / without["p99_ms"], 2)
    result["aim"] = AIM
    return result


def figures(latencies: list[float], expected: int) -> dict[str, float]:
    ordered = sorted(latencies) or [float("nan")]

    def quantile(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 1)

    return {
        "received": len(latencies),
        "expected": expected,
        "p50_ms": quantile(0.5),
        "p99_ms": quantile(0.99),
        "max_ms": round(ordered[-1], 1),
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--healthy", type=int, default=50, help="subscribers that answer")
    parser.add_argument("--dead", type=int, default=50, help="subscribers that never answer")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each phase")
    parser.add_argument("--rate", type=float, default=2.0, help="events a second, to everybody")


def _start(environment: dict[str, str]) -> list[subprocess.Popen[bytes]]:
    return [
        subprocess.Popen([sys.executable, "-m", name], env={**os.environ, **environment})
        for name in ("workers.worker", "workers.scheduler")
    ]


async def run(options: argparse.Namespace) -> None:
    """Measures and reports."""
    with tempfile.TemporaryDirectory() as directory:
        server = ValkeyServer(port=free_port(), data_dir=Path(directory), persist=False)
        server.start()
        environment = {
            "COURSEWIRE_REDIS_URL": f"redis://127.0.0.1:{server.port}/0",
            "COURSEWIRE_ENCRYPTION_KEYS": base64.urlsafe_b64encode(bytes(32)).decode(),
            "COURSEWIRE_ALLOWED_TARGETS": "127.0.0.0/8",
            "COURSEWIRE_LOG_LEVEL": "error",
        }
        children = _start(environment)
        redis = Redis.from_url(environment["COURSEWIRE_REDIS_URL"])
        try:
            version = await report.server_version(redis)
            result = await measure(options, Settings.from_env(environment))
        finally:
            await redis.aclose()
            for child in children:
                child.send_signal(signal.SIGTERM)
            for child in children:
                child.wait(60)
            server.stop()
    report.show(
        f"isolation: what {options.healthy} subscribers notice of {options.dead} that never answer "
        f"(p99 with / without: {result['p99_ratio']}; aim {AIM})",
        ["from detection to receipt, ms", "received", "expected", "p50", "p99", "most"],
        [
            [
                title,
                *(
                    str(result[name][column])
                    for column in ("received", "expected", "p50_ms", "p99_ms", "max_ms")
                ),
            ]
            for title, name in (("without them", "without"), ("with them", "with"))
        ],
    )
    report.tell("isolation", version, result)
