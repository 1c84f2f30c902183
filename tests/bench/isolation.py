"""How long healthy subscribers wait for events while others never answer.

One worker process, from the commit of an event to its receipt, with and without dead subscribers
in the same run.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from statistics import median
from typing import Any

import msgspec
from aiohttp import web

from service.bootstrap import Services, open_services
from service.clock import now_ms
from service.settings import Settings
from service.storage.redis import keys
from service.storage.registry.subscriptions import new_secret
from tests.bench import report
from tests.bench.command import Options, benchmark, option
from tests.bench.rig import embedded_server
from tests.bench.source import Source, environment, open_dispatching, subscribe, workers

AIM = 1.5  # times the latency without dead subscribers
UNDER_WAY_SECONDS = 60.0  # that attempts at the dead may take to end
WARM_SECONDS = 2.0  # before each phase
SETTLE_SECONDS = 20.0  # after the last event, for what is on its way


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


async def phase(
    source: Source, name: str, outboxes: Sequence[str], seconds: float, rate: float
) -> None:
    begun = time.monotonic()
    for number in range(int(seconds * rate)):
        await asyncio.sleep(max(0.0, begun + number / rate - time.monotonic()))
        await source.commit(outboxes, [f"{name}-{number}"])


async def silence(services: Services, dead: Sequence[str], *, paused: bool) -> None:
    """Takes the dead ones out, or puts them back; what is under way to them ends first."""
    for one in dead:
        await services.subscriptions.update(
            one, lambda it: msgspec.structs.replace(it, paused=paused)
        )
        if not paused:
            await services.subscriptions.resume(one, now_ms())
    until = time.monotonic() + UNDER_WAY_SECONDS
    while paused and await services.redis.exists(*(keys.lease("outboxes", one) for one in dead)):
        if time.monotonic() > until:
            raise AssertionError("outboxes that are paused are still at work")
        await asyncio.sleep(0.2)


async def measure(options: Options, settings: Settings) -> dict[str, Any]:
    receipts, loop = Receipts(), asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        services, dispatcher = await open_dispatching(stack, settings)
        source = Source(services, dispatcher)
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
            healthy.append(await subscribe(services, url, new_secret()))
        for _ in range(options.dead):
            server = await loop.create_server(NeverAnswers, "127.0.0.1", 0)
            stack.callback(server.close)
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            dead.append(await subscribe(services, url, new_secret()))
        await phase(source, "warm", healthy, WARM_SECONDS, options.rate)
        await receipts.hold("warm", int(WARM_SECONDS * options.rate) * len(healthy))
        for number in range(options.rounds):
            pair = [("without", healthy), ("with", [*healthy, *dead])]
            for name, outboxes in pair if number % 2 == 0 else reversed(pair):
                await silence(services, dead, paused=name == "without")
                # not measured: the resumed outboxes send what has waited, all at once
                await phase(source, "warm", outboxes, WARM_SECONDS, options.rate)
                await phase(source, f"{name}{number}", outboxes, options.seconds, options.rate)
                await receipts.hold(
                    f"{name}{number}", int(options.seconds * options.rate) * len(healthy)
                )
    expected = int(options.seconds * options.rate) * len(healthy)
    rounds = [
        {
            name: figures(receipts.latencies[f"{name}{number}"], expected)
            for name in ("without", "with")
        }
        for number in range(options.rounds)
    ]
    ratios = [one["with"]["p99_ms"] / one["without"]["p99_ms"] for one in rounds]
    result: dict[str, Any] = {
        "healthy": options.healthy,
        "dead": options.dead,
        "events_per_second": options.rate,
        "rounds": rounds,
        **{
            name: figures(
                [
                    latency
                    for number in range(options.rounds)
                    for latency in receipts.latencies[f"{name}{number}"]
                ],
                expected * options.rounds,
            )
            for name in ("without", "with")
        },
        "p99_ratio": round(median(ratios), 2),
        "p99_ratios": [round(one, 2) for one in ratios],
    }
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


@benchmark
@option("--healthy", default=50, help="subscribers that answer")
@option("--dead", default=50, help="subscribers that never answer")
@option("--seconds", default=20.0, help="of each phase")
@option("--rounds", default=3, help="of a phase without and one with")
@option("--rate", default=2.0, help="events a second, to everybody")
async def run(options: Options) -> None:
    """Measures and reports."""
    async with embedded_server() as embedded:
        settings = Settings.from_env(environment(embedded.require_redis_url()))
        async with workers(settings), open_services(settings) as services:
            version = await report.server_version(services.redis)
            result = await measure(options, settings)
    report.show(
        f"isolation: what {options.healthy} subscribers notice of {options.dead} that never answer "
        f"(p99 with / without: {result['p99_ratio']}, median of {result['p99_ratios']}; aim {AIM})",
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
