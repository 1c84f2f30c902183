"""The scenes, and one run of one of them: a system is started, loaded, judged and ended."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec

from tests.bench import pages
from tests.bench.processes import Child, child
from tests.bench.senders import traffic
from tests.bench.senders.systems import Direct, System
from tests.bench.senders.traffic import Mark, Publication, Receipt
from tests.bench.senders.verdict import Verdict, judge

_LIMIT_DELIVERIES = 5_000  # at least, that publisher and receivers are measured with
_LIMIT_COURSES = 20_000  # that the upstream alone is measured with
_KILL_AT = 0.4  # of all deliveries
_GRACE_SECONDS = 1.0  # after the last delivery that was expected, for what comes twice
_STILL_SECONDS = 120.0  # without a new delivery, after which none is expected


class Sizes(msgspec.Struct, frozen=True):
    """How large the scenes are: all follow from these."""

    events: int  # to one destination
    destinations: int  # of the scene `many`
    some: int  # destinations of bursts, and of the scene with a dead one


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """What happens: how many destinations get which batches of events, one every `pace` seconds."""

    title: str
    destinations: int
    batches: list[list[Mark]]
    pace: float = 0.0  # 0: as fast as they are accepted
    dead: bool = False  # afterwards the same with a destination more, which never answers
    fail_every: int = 0  # attempts, of which the last gets a 500
    kill: bool = False

    @property
    def marks(self) -> list[Mark]:
        return [mark for batch in self.batches for mark in batch]


def scenes(sizes: Sizes) -> dict[str, Scene]:
    """By name."""
    many = max(1, sizes.events // sizes.destinations)
    bursts = max(2, sizes.events // 2_000)
    paced = max(5, sizes.events // 400)
    return {
        "one": Scene(
            title=f"{sizes.events} events to one destination",
            destinations=1,
            batches=traffic.batches(sizes.events, traffic.OBJECTS),
        ),
        "many": Scene(
            title=f"{many} events to each of {sizes.destinations} destinations",
            destinations=sizes.destinations,
            batches=traffic.batches(many, traffic.OBJECTS),
        ),
        "bursts": Scene(
            title=f"{bursts} bursts of 40 events, one every 2 s, to {sizes.some} destinations",
            destinations=sizes.some,
            batches=traffic.batches(40 * bursts, 40),
            pace=2.0,
        ),
        "dead": Scene(
            title=f"{paced} events at 5/s to {sizes.some} destinations, then also to a dead one",
            destinations=sizes.some,
            batches=traffic.batches(paced, 1),
            pace=0.2,
            dead=True,
        ),
        "order": Scene(
            title=f"{paced} events of one object at 5/s; each fifth attempt gets a 500",
            destinations=1,
            batches=traffic.batches(paced, 1),
            pace=0.2,
            fail_every=5,
        ),
        "kill": Scene(
            title=f"kill -9 of the sender after {_KILL_AT:.0%} of {sizes.events} deliveries",
            destinations=1,
            # An object has several events, so that order can be lost.
            batches=traffic.batches(sizes.events, max(1, min(traffic.OBJECTS, sizes.events // 10))),
            kill=True,
        ),
    }


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One load of one run. Processor seconds and memory are of all processes of the system."""

    phase: str  # of a scene with several
    verdict: Verdict
    cpu_seconds: float
    peak_mb: float


class Run:
    """One system in one scene."""

    def __init__(self, scene: Scene, system: System, receivers: Child, patience: float) -> None:
        self._scene = scene
        self._system = system
        self._receivers = receivers
        self._patience = patience

    async def outcomes(self, hosts: Sequence[str], dead: str, settle: float) -> list[Outcome]:
        chosen = [f"http://{host}/" for host in hosts[: self._scene.destinations]]
        await self._system.subscribe(chosen)
        if not self._scene.dead:
            return [await self._load("", self._scene.batches, settle)]
        # Numbers go on, so that nothing of the first load counts for the second.
        later = [
            [(one, number + len(self._scene.batches)) for one, number in batch]
            for batch in self._scene.batches
        ]
        without = await self._load("without", self._scene.batches, settle)
        await self._system.subscribe([f"http://{dead}/"])
        return [without, await self._load("with", later, settle)]

    async def _load(self, phase: str, batches: list[list[Mark]], settle: float) -> Outcome:
        marks = [mark for batch in batches for mark in batch]
        expected = len(marks) * self._scene.destinations
        meter = self._system.meter
        await self._receivers.ask({"reset": {"fail_every": self._scene.fail_every}})
        before, meter.peak_mb = meter.cpu_seconds(), 0.0
        watching = asyncio.create_task(meter.watch())
        try:
            publications = await self._published(batches, expected)
            await self._received(expected)
            await asyncio.sleep(settle)  # the work that a system puts off counts as well
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
        receipts = await self._noted()
        return Outcome(
            phase=phase,
            verdict=judge(receipts, publications, marks, range(self._scene.destinations)),
            cpu_seconds=round(meter.cpu_seconds() - before, 2),
            peak_mb=meter.peak_mb,
        )

    async def _published(
        self, batches: list[list[Mark]], expected: int
    ) -> Mapping[Mark, Publication]:
        longest = self._patience + self._scene.pace * len(batches)
        async with asyncio.timeout(longest), asyncio.TaskGroup() as group:
            publishing = group.create_task(self._system.publish(batches, self._scene.pace))
            if self._scene.kill:
                enough = round(expected * _KILL_AT)
                if await self._receivers.ask({"await": [enough, self._patience]}) < enough:
                    raise AssertionError("too little has arrived to kill the sender in the middle")
                await self._system.kill()
        return publishing.result()

    async def _received(self, expected: int) -> None:
        """Waits for everything, or until nothing new arrives; then for what comes twice."""
        until = time.monotonic() + self._patience
        found, before = 0, -1
        while before < found < expected and time.monotonic() < until:
            before = found
            found = await self._receivers.ask({"await": [expected, _STILL_SECONDS]})
        await asyncio.sleep(_GRACE_SECONDS)

    async def _noted(self) -> Sequence[Receipt]:
        path = self._system.directory / "receipts"
        await self._receivers.ask({"write": str(path)})
        return traffic.read(path, Receipt)


@contextmanager
def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="coursewire-bench-") as name:
        directory = Path(name)
        directory.chmod(0o711)  # PostgreSQL may run as another user
        yield directory


async def perform(
    scene: Scene, kind: type[System], *, best: bool, patience: float, settle: float
) -> list[Outcome]:
    """Runs a scene with a system that is started for it, in a directory of its own."""
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(_directory())
        receivers = await stack.enter_async_context(
            child("tests.bench.senders.receiver", "--hosts", str(scene.destinations))
        )
        listening: dict[str, Any] = await receivers.hear()
        system = await stack.enter_async_context(
            kind(directory, best=best, quick_retries=bool(scene.fail_every), patience=patience)
        )
        run = Run(scene, system, receivers, patience)
        return await run.outcomes(listening["hosts"], listening["dead"], settle)


async def limit(scene: Scene, patience: float) -> float:
    """Deliveries a second that the publisher and the receivers manage without a sender."""
    events = max(len(scene.marks), _LIMIT_DELIVERIES // scene.destinations)
    (outcome,) = await perform(
        Scene(
            title="limit",
            destinations=scene.destinations,
            batches=traffic.batches(events, traffic.OBJECTS),
        ),
        Direct,
        best=False,
        patience=patience,
        settle=0.0,
    )
    if outcome.verdict.lost or outcome.verdict.disordered or outcome.verdict.duplicates:
        raise AssertionError(f"publisher and receivers do not agree: {outcome.verdict}")
    return outcome.verdict.rate


async def upstream_limit() -> float:
    """Courses a second that the upstream gives one client, who does nothing with them."""
    async with (
        child("tests.bench.senders.upstream", "--objects", str(traffic.OBJECTS)) as upstream,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        url = f"http://127.0.0.1:{await upstream.hear()}/v1/courses"
        begun, given, cursor = time.monotonic(), 0, "0"
        while given < _LIMIT_COURSES:
            body = (await client.get(url, params={"cursor": cursor})).content
            given += pages.PAGE_SIZE
            cursor = str(given % traffic.OBJECTS)
            assert body
        return given / (time.monotonic() - begun)
