"""Deliveries a second and what each costs, against a bare loop and against one job for each.

One worker process, one process of subscribers. Latency, from the detection of a change to its
receipt, is measured at shares of the rate that was sustained just before, and for a burst.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from importlib.util import find_spec
from statistics import median
from typing import Any

import msgspec
from redis import Redis as SyncRedis
from rq import Queue

from service.bootstrap import Services
from service.clients.transport import KEEPALIVE_SECONDS
from service.clock import now_ms
from service.domain.delivery.subscription import Format
from service.domain.events.event import CONTENT_TYPES, render
from service.domain.signatures.signing import Signer, SigningSecret
from service.settings import Settings
from service.storage.redis import keys
from service.storage.registry.subscriptions import new_secret
from tests.bench import report
from tests.bench.command import Options, Several, benchmark, option
from tests.bench.processes import Child, child, tree_cpu_seconds
from tests.bench.source import PAGE, Source, open_fresh, subscribe, workers

BARE_AIM, PEER_AIM = 0.3, 20.0  # times the bare loop, times one job for each
P50_AIM_MS, P99_AIM_MS = 30.0, 150.0  # from detection to receipt, unloaded
_OUT = {"one": 8, "many": 200}  # posts that the bare loop has out, about as many as ours
_SINGLE = "answering, many, an event each"  # where a turn cannot share its cost among events
_NEW = f"{_SINGLE}, new connections"  # and where nothing was sent for some seconds
_SHORT_RUNS = 3  # in each round, of the scenes that take less than a second
_BURST_CHANGES, _BURST_FAN_OUT = 40, 20
_BURST_OUT = 20  # with which the bare loop is fastest there
_WARM = 20  # deliveries of a peer before it is measured
# Each worker opens up to 8 connections to each host. If there were more subscriptions, the
# subscribers would reach the limit of open files before the workers reach their rate.
_GROWTH_SUBSCRIPTIONS, _GROWTH_EVENTS = 400, 50
_GROWTH_WARM = 5  # rounds, until each worker has been to almost every host
_COURSES = 5_000  # that the events are of, in turn
_CLOSED_SECONDS = KEEPALIVE_SECONDS + 0.5  # after which a worker has no idle connection
_TICK_SECONDS = 0.02  # between commits of a paced phase
_UNLOADED = 5  # deliveries a second
# By scene, the loads at which latency is measured: deliveries a second, or a share of the
# sustained rate. The last two are 50 and 90 % of the rate that was sustained when the aims for
# them were set.
_LOADS = {
    "answering, one": (_UNLOADED, 0.1, 0.5, 0.9),
    "answering, many": (_UNLOADED, 0.1, 0.5, 0.9),
    _SINGLE: (0.5, 0.9, 1_200, 2_160),
}
_PATIENCE_SECONDS = 120.0


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """Deliveries a second, and µs of processor time for each: the sender's, and Redis's."""

    rate: float
    cpu_us: float
    redis_us: float = 0.0


class Scene:
    """Subscribers of one kind, and what is sent to them."""

    def __init__(self, receivers: Child, urls: list[str], subscriptions: list[str]) -> None:
        self.receivers = receivers
        self.urls = urls
        self.subscriptions = subscriptions

    def first(self, count: int) -> Scene:
        """The first subscriptions of it."""
        return Scene(self.receivers, self.urls[:count], self.subscriptions[:count])

    async def reset(self, expected: int) -> None:
        await self.receivers.ask({"reset": {"expected": expected}})

    async def arrived(self, expected: int, seconds: float = _PATIENCE_SECONDS) -> dict[str, Any]:
        """What arrived. Raises AssertionError unless it is all of it, and as it should be."""
        told = await self.receivers.ask({"await": seconds})
        if told["distinct"] != expected or told["refused"] or told["swapped"]:
            raise AssertionError(f"not what was sent, {expected} deliveries: {told}")
        return told


class Bench:
    """The service under measurement and what is measured of it."""

    def __init__(self, services: Services, source: Source, options: Options) -> None:
        self.services = services
        self.source = source
        self.options = options
        self.secret = new_secret()
        self._signer = Signer([SigningSecret(self.secret)])
        self._course = 0
        self.redis_url = services.settings.require_redis_url()

    def courses(self, count: int) -> list[str]:
        """The next courses that something happens to."""
        begun = self._course
        self._course += count
        return [f"course-{number % _COURSES}" for number in range(begun, begun + count)]

    async def fill(self, scene: Scene, events: int) -> None:
        """Commits events to all outboxes of the scene while delivery is paused."""
        await self.services.control.pause("delivery")
        while await self.services.redis.zcard(keys.claimed("outboxes")):  # noqa: ASYNC110 - in Redis
            await asyncio.sleep(0.05)  # running turns notice the pause within two seconds
        # One commit has no more outbox entries than the worst page of a poll.
        page = max(1, min(PAGE, 5_000 // len(scene.subscriptions)))
        for start in range(0, events, page):
            await self.source.commit(
                scene.subscriptions, self.courses(min(page, events - start)), dispatch=False
            )

    async def ours(self, scene: Scene, events: int, senders: list[Child]) -> Run:
        """Drains outboxes that were filled before."""
        expected = events * len(scene.subscriptions)
        await scene.reset(expected)
        cpu, redis_cpu = (
            sum(one.cpu_seconds() for one in senders),
            await report.server_cpu_seconds(self.services.redis),
        )
        await self.services.control.resume("delivery")
        begun = time.time()
        await self.source.dispatch()
        told = await scene.arrived(expected)
        await self.recorded()
        return Run(
            rate=expected / (told["last"] - begun),
            cpu_us=(sum(one.cpu_seconds() for one in senders) - cpu) / expected * 1e6,
            redis_us=(await report.server_cpu_seconds(self.services.redis) - redis_cpu)
            / expected
            * 1e6,
        )

    async def recorded(self) -> None:
        """Waits until nothing is pending."""
        until = time.monotonic() + _PATIENCE_SECONDS
        while int(await self.services.redis.hget(keys.TOTALS, "pending") or 0):
            if time.monotonic() > until:
                raise AssertionError("deliveries arrived that are not recorded")
            await asyncio.sleep(0.05)

    async def bare(self, scene: Scene, events: int, concurrency: int) -> Run:
        """Posts the same bytes, signed before, to the same subscribers, and keeps no account."""
        requests = await self._signed(scene, events)
        await scene.reset(len(requests))
        with tempfile.NamedTemporaryFile() as file:
            file.write(msgspec.msgpack.encode(requests))
            file.flush()
            async with child("tests.bench.bare", file.name, str(concurrency)) as loop:
                await loop.hear()
                took = await loop.ask("go")
                await scene.arrived(len(requests))
        return Run(rate=len(requests) / took["wall"], cpu_us=took["cpu"] / len(requests) * 1e6)

    async def _signed(self, scene: Scene, events: int) -> list[tuple[str, dict[str, str], bytes]]:
        """What the outboxes of the scene hold, signed, an event to everybody before the next."""
        entries = await self.services.outboxes.read(scene.subscriptions[0], "-", events)
        stored = await self.services.events.get_many([one.event_position for one in entries])
        requests = []
        for entry, event in zip(entries, stored, strict=True):
            assert event is not None
            body = render(event, entry.rendering)
            headers = {
                "content-type": CONTENT_TYPES[Format.STANDARD],
                **self._signer.headers(event.id, now_ms(), body),
            }
            requests += [(url, headers, body) for url in scene.urls]
        return requests

    async def latency(self, scene: Scene, per_second: float, seconds: float) -> dict[str, Any]:
        """From detection to receipt, for a share of the subscriptions at a time where there are
        many."""
        fan_out = min(len(scene.subscriptions), 50)
        count = max(1, round(per_second * _TICK_SECONDS / fan_out))
        every = count * fan_out / per_second
        ticks = int(seconds / every)
        gc.collect()  # this process states when it detects a change: it must not pause then
        expected = ticks * count * fan_out
        await scene.reset(expected)
        begun = time.monotonic()
        for tick in range(ticks):
            await asyncio.sleep(max(0.0, begun + tick * every - time.monotonic()))
            first = tick * fan_out % len(scene.subscriptions)
            outboxes = (scene.subscriptions[first:] + scene.subscriptions[:first])[:fan_out]
            await self.source.commit(outboxes, self.courses(count))
        told = await scene.arrived(expected)
        await self.recorded()
        return {
            "per_second": round(expected / (ticks * every), 1),
            "deliveries": expected,
            **{name: told[name] for name in ("p50_ms", "p99_ms", "max_ms")},
        }

    async def singles(self, scene: Scene, senders: list[Child]) -> dict[str, Run]:
        """Each subscription gets one event: over new connections, and over those then open."""
        await self.fill(scene, 1)
        limit = await self.bare(scene, 1, _OUT["many"])
        await asyncio.sleep(_CLOSED_SECONDS)
        new = await self.ours(scene, 1, senders)
        await self.fill(scene, 1)
        return {
            f"bare, {_NEW}": limit,
            f"ours, {_NEW}": new,
            f"ours, {_SINGLE}": await self.ours(scene, 1, senders),
        }

    async def burst(self, scene: Scene, senders: list[Child]) -> dict[str, float]:
        """All changes of a page at once; beside it the ms in which the bare loop posts as much."""
        few = scene.first(_BURST_FAN_OUT)
        expected = _BURST_CHANGES * len(few.subscriptions)
        await self.fill(few, _BURST_CHANGES)
        limit = await self.bare(few, _BURST_CHANGES, _BURST_OUT)
        await self.ours(few, _BURST_CHANGES, senders)
        await few.reset(expected)
        await self.source.commit(few.subscriptions, self.courses(_BURST_CHANGES))
        told = await few.arrived(expected)
        await self.recorded()
        bare_ms = expected / limit.rate * 1000
        return {"p50_ms": told["p50_ms"], "p99_ms": told["p99_ms"], "bare_ms": round(bare_ms, 1)}

    # --- peers ---------------------------------------------------------------------------------

    async def rq(self, scene: Scene, deliveries: int, worker: str) -> Run:
        """One RQ job for each delivery, by a worker of this class."""
        with SyncRedis.from_url(self.redis_url) as connection:
            queue = Queue("bench-deliver", connection=connection)

            def enqueue(count: int) -> None:
                queue.enqueue_many(
                    [
                        Queue.prepare_data(
                            "tests.bench.peers.rq_delivery.deliver",
                            self._peer_arguments(scene, number),
                            result_ttl=0,
                        )
                        for number in range(count)
                    ]
                )

            async with child(
                "rq.cli", "worker", "bench-deliver", "--quiet", "--url", self.redis_url,
                "--worker-class", worker,
            ) as process:  # fmt: skip
                return await self._peer(scene, deliveries, enqueue, process)

    async def celery(self, scene: Scene, deliveries: int) -> Run:
        """One Celery task for each delivery, by one process of its default pool."""
        os.environ["BENCH_BROKER"] = self.redis_url  # which the next line reads
        from tests.bench.peers.celery_delivery import deliver

        def enqueue(count: int) -> None:
            for number in range(count):
                deliver.apply_async(self._peer_arguments(scene, number))

        async with child(
            "celery", "-A", "tests.bench.peers.celery_delivery", "worker", "--concurrency", "1",
            "--loglevel", "CRITICAL", "--without-gossip", "--without-mingle",
            environment={"BENCH_BROKER": self.redis_url},
            noisy=False,
        ) as process:  # fmt: skip
            return await self._peer(scene, deliveries, enqueue, process)

    def _peer_arguments(self, scene: Scene, number: int) -> tuple[str, str, str, str]:
        text = "x" * 1_650  # as large as ours
        body = f'{{"type":"course.updated","data":{{"course_id":"{number}","text":"{text}"}}}}'
        url = scene.urls[number % len(scene.urls)]
        return url, self.secret, f"evt_{number}_{time.monotonic_ns()}", body

    async def _peer(
        self, scene: Scene, deliveries: int, enqueue: Callable[[int], None], process: Child
    ) -> Run:
        """From the first receipt to the last, after some that are not counted."""
        await scene.reset(_WARM)
        await asyncio.to_thread(enqueue, _WARM)
        await scene.arrived(_WARM)
        await scene.reset(deliveries)
        cpu, redis_cpu = (
            tree_cpu_seconds(process.pid),
            await report.server_cpu_seconds(self.services.redis),
        )
        await asyncio.to_thread(enqueue, deliveries)
        told = await scene.arrived(deliveries)
        await asyncio.sleep(0.2)  # until the last job's process is waited for
        return Run(
            rate=(deliveries - 1) / (told["last"] - told["first"]),
            cpu_us=(tree_cpu_seconds(process.pid) - cpu) / deliveries * 1e6,
            redis_us=(await report.server_cpu_seconds(self.services.redis) - redis_cpu)
            / deliveries
            * 1e6,
        )


@benchmark
@option("--events", default=20_000, help="to one subscription")
@option("--subscriptions", default=1_000, help="that get 20 events each")
@option("--rounds", default=3)
@option("--seconds", default=5.0, help="of each paced phase")
@option("--workers", type=Several(int), default=[2, 4], help="processes, besides one")
@option("--peer-deliveries", default=400, help="of each peer in a round; 0: none")
async def run(options: Options) -> None:
    """Measures and reports."""
    async with AsyncExitStack() as stack:
        settings, services, dispatcher = await open_fresh(stack)
        source = Source(services, dispatcher)
        await source.start()
        bench = Bench(services, source, options)
        scenes = await _scenes(bench, stack)
        results = await _measure(bench, settings, scenes)
        server = await report.server_version(services.redis)
    _show(results)
    report.tell("delivery", server, results)


async def _scenes(bench: Bench, stack: AsyncExitStack) -> dict[tuple[str, str], Scene]:
    """By what the subscribers do, and how many they are."""
    scenes = {}
    many = bench.options.subscriptions
    for kind, more in (("answering", []), ("verifying", ["--secret", bench.secret])):
        receivers = await stack.enter_async_context(
            child("tests.bench.subscribers", "--hosts", str(many), *more)
        )
        urls = [f"http://{host}/hooks" for host in await receivers.hear()]
        for size, chosen in (("one", urls[:1]), ("many", urls)):
            ids = [await subscribe(bench.services, url, bench.secret) for url in chosen]
            scenes[kind, size] = Scene(receivers, chosen, ids)
    return scenes


async def _measure(
    bench: Bench, settings: Settings, scenes: dict[tuple[str, str], Scene]
) -> dict[str, Any]:
    options = bench.options
    runs: dict[str, list[Run]] = {}
    bursts: list[dict[str, float]] = []
    peers = _peers(bench, scenes)

    def note(name: str, measured: Run) -> None:
        runs.setdefault(name, []).append(measured)

    async with workers(settings) as senders:
        for number in range(-1, options.rounds):
            for (kind, size), scene in scenes.items():
                events = options.events if size == "one" else 20
                if number < 0:
                    events = min(events, 200)
                await bench.fill(scene, events)
                note(f"bare, {kind}, {size}", await bench.bare(scene, events, _OUT[size]))
                note(f"ours, {kind}, {size}", await bench.ours(scene, events, senders))
            for _ in range(_SHORT_RUNS):
                scene = scenes["answering", "many"]
                for name, measured in (await bench.singles(scene, senders)).items():
                    note(name, measured)
                bursts.append(await bench.burst(scene, senders))
            if number < 0:  # it only did everything once
                runs.clear()
                bursts.clear()
                continue
            for name, measure in peers.items():
                note(name, await measure())
        latencies = await _latencies(bench, scenes, senders)
    grown = await _growth(bench, settings, scenes["answering", "many"])
    return {
        "events": options.events,
        "subscriptions": options.subscriptions,
        "rounds": options.rounds,
        "runs": {name: _middle(measured) for name, measured in runs.items()},
        "ratios": {
            name: {"median": round(median(found), 3), "all": [round(one, 3) for one in found]}
            for name, found in _ratios(runs).items()
        },
        "peer_ratios": {
            name: round(
                median(one.rate for one in runs[f"ours, {name.partition(', ')[2]}"])
                / median(one.rate for one in runs[name]),
                1,
            )
            for name in peers
        },
        "latency": latencies,
        "bursts": {
            name: {"median": median(found), "all": found}
            for name in ("p50_ms", "p99_ms", "bare_ms")
            for found in [[one[name] for one in bursts]]
        },
        "per_second_by_worker_processes": {
            str(count): {"median": round(median(found), 1), "all": [round(one) for one in found]}
            for count, found in grown.items()
        },
        "aims": {"bare": BARE_AIM, "peer": PEER_AIM, "p50_ms": P50_AIM_MS, "p99_ms": P99_AIM_MS},
    }


async def _growth(bench: Bench, settings: Settings, scene: Scene) -> dict[int, list[float]]:
    """By the number of worker processes: deliveries a second, over open connections."""
    scene = scene.first(_GROWTH_SUBSCRIPTIONS)
    grown: dict[int, list[float]] = {}
    for count in (1, *bench.options.workers):
        async with workers(settings, count) as senders:
            for number in range(-_GROWTH_WARM, bench.options.rounds * _SHORT_RUNS):
                await bench.fill(scene, _GROWTH_EVENTS)
                measured = await bench.ours(scene, _GROWTH_EVENTS, senders)
                if number >= 0:
                    grown.setdefault(count, []).append(measured.rate)
    return grown


def _ratios(runs: dict[str, list[Run]]) -> dict[str, list[float]]:
    """By scene: our rate / the bare loop's in the same round."""
    return {
        scene: [
            ours.rate / limit.rate
            for ours, limit in zip(runs[f"ours, {scene}"], limits, strict=True)
        ]
        for name, limits in runs.items()
        for who, _, scene in [name.partition(", ")]
        if who == "bare"
    }


def _peers(
    bench: Bench, scenes: dict[tuple[str, str], Scene]
) -> dict[str, Callable[[], Awaitable[Run]]]:
    """By who sends and which scene. A job for each delivery costs the same wherever it goes, so
    the one that takes longest is measured once and with fewer."""
    count = bench.options.peer_deliveries
    if not count:
        return {}
    plain = scenes["answering", "one"]
    peers: dict[str, Callable[[], Awaitable[Run]]] = {
        "rq forking, answering, one": lambda: bench.rq(
            plain, max(2, count // 4), "rq.worker.Worker"
        )
    }
    celery = find_spec("celery")
    for kind, size in (("answering", "one"), ("verifying", "many")):
        scene = scenes[kind, size]
        peers[f"rq simple, {kind}, {size}"] = partial(
            bench.rq, scene, count, "rq.worker.SimpleWorker"
        )
        if celery:
            peers[f"celery, {kind}, {size}"] = partial(bench.celery, scene, count)
    if not celery:
        sys.stdout.write("celery is left out: `make bench` installs it\n")
    return peers


async def _latencies(
    bench: Bench, scenes: dict[tuple[str, str], Scene], senders: list[Child]
) -> list[dict[str, Any]]:
    """By scene and load. The speed of a machine changes, so the rate that it sustains is measured
    immediately before."""
    found: dict[tuple[str, float], list[dict[str, Any]]] = {}
    few, many = scenes["answering", "one"], scenes["answering", "many"]
    for _ in range(bench.options.rounds):
        for name, loads in _LOADS.items():
            scene = few if name == "answering, one" else many
            if name == _SINGLE:
                sustained = (await bench.singles(scene, senders))[f"ours, {name}"].rate
            else:
                events = bench.options.events // len(scene.subscriptions)
                await bench.fill(scene, events)
                sustained = (await bench.ours(scene, events, senders)).rate
            for load in loads:
                measured = await bench.latency(
                    few if load == _UNLOADED else scene,
                    load if load >= 1 else load * sustained,
                    bench.options.seconds,
                )
                found.setdefault((name, load), []).append(measured)
    return [
        {
            "to": name.removeprefix("answering, "),
            "load": load,
            **{key: round(median(one[key] for one in measured), 2) for key in measured[0]},
            "p99_ms_all": [one["p99_ms"] for one in measured],
        }
        for (name, load), measured in found.items()
    ]


def _middle(runs: list[Run]) -> dict[str, float]:
    return {
        name: round(median(getattr(one, name) for one in runs), 1) for name in Run.__struct_fields__
    }


def _show(results: dict[str, Any]) -> None:
    report.show(
        f"delivery: {results['events']} events to one subscription, 20 to each of "
        f"{results['subscriptions']}; medians of {results['rounds']} rounds",
        ("", "deliveries/s", "CPU µs each", "Redis CPU µs each", "ours / this"),
        [
            (
                name,
                f"{run['rate']:.0f}",
                f"{run['cpu_us']:.0f}",
                f"{run['redis_us']:.0f}" if run["redis_us"] else "",
                _ratio(results, name),
            )
            for name, run in results["runs"].items()
        ],
    )
    report.show(
        f"from detection to receipt (aims unloaded: p50 {P50_AIM_MS:.0f} ms, "
        f"p99 {P99_AIM_MS:.0f} ms); medians of {results['rounds']} measurements",
        ("load, to", "deliveries/s", "p50 ms", "p99 ms", "most ms", "p99 ms, all"),
        [
            (
                f"{_load(one['load'])}, {one['to']}",
                *(str(one[name]) for name in ("per_second", "p50_ms", "p99_ms", "max_ms")),
                ", ".join(f"{each:.0f}" for each in one["p99_ms_all"]),
            )
            for one in results["latency"]
        ],
    )
    report.show(
        f"a burst of {_BURST_CHANGES} changes to {_BURST_FAN_OUT} subscriptions; medians",
        ("", "ms"),
        [
            ("p50", str(results["bursts"]["p50_ms"]["median"])),
            ("p99", str(results["bursts"]["p99_ms"]["median"])),
            ("the bare loop, all of it", str(results["bursts"]["bare_ms"]["median"])),
        ],
    )
    grown_to = min(_GROWTH_SUBSCRIPTIONS, results["subscriptions"])
    report.show(
        f"how it grows, {_GROWTH_EVENTS} events to each of {grown_to}; medians",
        ("worker processes", "deliveries/s", "all"),
        [
            (count, f"{found['median']:.0f}", f"{min(found['all'])} to {max(found['all'])}")
            for count, found in results["per_second_by_worker_processes"].items()
        ],
    )


def _load(load: float) -> str:
    if load == _UNLOADED:
        return "unloaded"
    return f"{load:.0%}" if load < 1 else f"{load}/s"


def _ratio(results: dict[str, Any], name: str) -> str:
    who, _, scene = name.partition(", ")
    if who == "bare":
        found = results["ratios"][scene]
        return f"{found['median']} ({min(found['all'])} to {max(found['all'])}; aim {BARE_AIM})"
    if name in results["peer_ratios"]:
        return f"{results['peer_ratios'][name]}" + (
            f" (aim {PEER_AIM:.0f})" if who.startswith("rq") else ""
        )
    return ""
