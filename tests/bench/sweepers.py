"""Sweeps of a sandbox's courses by us, by what people write, by Nango's algorithm and by dlt.

Each in a process of its own, over HTTP, after the same changes: what it costs, and which changes
were missed, invented or reported twice.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from contextlib import AsyncExitStack
from importlib.util import find_spec
from typing import Any

import httpx
from redis.asyncio import Redis

from tests.bench import report
from tests.bench.peers.sweepers import CONTENDERS, Setting
from tests.bench.processes import Child, child
from tests.bench.rig import embedded_server

_KEY, _UPSTREAM = "sandbox-key", "sandbox:bench"
_SKIPPED = 20  # records that a page leaves out because the rows before it moved
_FAULTY_STEPS = ("touched", "shifted")
_SLOW, _LARGE = ("script", "dlt"), 20_000  # who is spared these steps from how many courses on
_TITLES = {
    "decoding": "fetch and typed decode (limit)",
    "ours": "Coursewire",
    "script": "script: SHA-256, a key each",
    "nango": "Nango's algorithm, reimplemented",
    "dlt": "dlt, scd2 on DuckDB",
}
STEPS = {
    "first": "the first sweep",
    "0%": "nothing changed",
    "1%": "1 % edited, created or deleted",
    "100%": "every title edited",
    "touched": "every changed_at moved, nothing else",
    "shifted": f"a page {_SKIPPED} records short, nothing changed",
}

Wanted = Counter[tuple[str, str]]


class Contender:
    """One of those that sweep."""

    def __init__(self, process: Child, redis: Redis | None) -> None:
        self.process = process
        self._redis = redis
        self._redis_before = 0.0

    async def start(self, setting: Setting) -> None:
        """Raises AssertionError if it does not start."""
        if self._redis is not None:
            self._redis_before = await self._redis_mb()
        assert await self.process.ask(setting) == "ready"

    async def sweep(self) -> dict[str, Any]:
        """What it took, and what it reports."""
        took = await self.process.ask({})
        took["redis_mb"] = (
            None if self._redis is None else await self._redis_mb() - self._redis_before
        )
        return dict(took)

    async def _redis_mb(self) -> float:
        assert self._redis is not None
        return float((await self._redis.info("memory"))["used_memory"]) / 1e6


class Sandbox:
    """The upstream, in a process of its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.AsyncClient(base_url=url, timeout=120)
        self._served = 0

    async def create(self, courses: int) -> str:
        """An integration with so many courses; its upstream id."""
        await self._post("/control/rate-limit", {"per_minute": 1_000_000})
        name = f"{_UPSTREAM}-{courses}"
        await self._post("/control/integrations", {"upstream_id": name, "courses": courses})
        return name

    async def change(self, upstream_id: str, *changes: dict[str, Any]) -> Wanted:
        """Makes changes, and says what is to be reported of them."""
        made = await self._post(f"/control/integrations/{upstream_id}/changes", list(changes))
        kinds = {"create": "created", "delete": "deleted"}
        return Counter((kinds.get(one["op"], "updated"), one["course_id"]) for one in made)

    async def shift(self, upstream_id: str) -> None:
        """Has one page of the next walk leave records out."""
        fault = {"kind": "shift", "by": _SKIPPED, "on": "later", "times": 1}
        await self._post("/control/faults", {**fault, "upstream_id": upstream_id})

    async def served(self) -> int:
        """Requests since the last call."""
        found = await self._client.get("/control/served", params={"after": self._served})
        requests = found.raise_for_status().json()
        if requests:
            self._served = requests[-1]["n"]
        return len(requests)

    async def _post(self, path: str, content: object) -> Any:
        answer = await self._client.post(path, json=content)
        answer.raise_for_status()
        return answer.json()

    async def close(self) -> None:
        await self._client.aclose()


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--courses", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument(
        "--contenders", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS)
    )


async def run(options: argparse.Namespace) -> None:
    """Measures and reports."""
    contenders = list(options.contenders)
    if "dlt" in contenders and not find_spec("dlt"):
        contenders.remove("dlt")
        sys.stdout.write("dlt is left out: `make bench` installs it\n")
    measured = []
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(
            child("service.cli", "sandbox", "--port", "0", "--courses", "0", "--quiet")
        )
        sandbox = Sandbox((await process.hear_text()).split()[-1].removesuffix("/v1"))
        stack.push_async_callback(sandbox.close)
        for courses in options.courses:
            measured += await _compare(sandbox, courses, contenders)
    for courses in options.courses:
        _show(courses, [one for one in measured if one["courses"] == courses])
    report.tell("sweepers", report.EMBEDDED, {"sweeps": measured})


async def _compare(sandbox: Sandbox, courses: int, names: list[str]) -> list[dict[str, Any]]:
    upstream_id = await sandbox.create(courses)
    measured = []
    async with AsyncExitStack() as stack:
        contenders = {name: await _contender(stack, sandbox, upstream_id, name) for name in names}
        for step in STEPS:
            wanted = await _prepare(sandbox, upstream_id, step, courses)
            for name, contender in contenders.items():
                if step in _FAULTY_STEPS and name in _SLOW and courses > _LARGE:
                    continue  # what they make of that does not depend on how many there are
                if step == "shifted":
                    await sandbox.shift(upstream_id)
                await sandbox.served()
                took = await contender.sweep()
                measured.append(
                    {
                        "courses": courses,
                        "step": step,
                        "by": name,
                        **{part: round(took[part], 3) for part in ("wall", "cpu")},
                        "cpu_us_per_record": round(took["cpu"] / courses * 1e6, 2),
                        "peak_mb": round(took["peak_mb"], 1),
                        "redis_mb": took["redis_mb"] and round(took["redis_mb"], 2),
                        "requests": await sandbox.served(),
                        **_judged(step, name, wanted, took["changes"]),
                    }
                )
    return measured


async def _contender(
    stack: AsyncExitStack, sandbox: Sandbox, upstream_id: str, name: str
) -> Contender:
    redis, redis_url = None, ""
    if name in ("ours", "script", "nango"):
        settings = await stack.enter_async_context(embedded_server())
        redis_url = settings.require_redis_url()
        redis = Redis.from_url(redis_url)
        stack.push_async_callback(redis.aclose)
    directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="coursewire-bench-"))
    process = await stack.enter_async_context(child("tests.bench.peers.sweepers", name))
    contender = Contender(process, redis)
    await contender.start(Setting(f"{sandbox.url}/v1", _KEY, upstream_id, redis_url, directory))
    return contender


async def _prepare(sandbox: Sandbox, upstream_id: str, step: str, courses: int) -> Wanted:
    """Makes the changes of a step, and says what is to be reported."""
    if step == "1%":
        few = max(1, courses // 1000)
        return await sandbox.change(
            upstream_id,
            {"op": "delete", "count": few},
            {"op": "edit", "count": 8 * few, "path": "revisions.title"},
            {"op": "create", "count": few},
        )
    if step == "100%":
        return await sandbox.change(
            upstream_id, {"op": "edit", "all": True, "path": "revisions.title"}
        )
    if step == "touched":
        await sandbox.change(upstream_id, {"op": "edit", "all": True, "path": "changed_at"})
    return Counter()


def _judged(
    step: str, name: str, wanted: Wanted, changes: list[tuple[str, str]]
) -> dict[str, int | None]:
    """How many changes were missed, invented and reported twice."""
    if step == "first" or name == "decoding":
        return {"missed": None, "false": None, "duplicate": None}
    told = Counter((kind, course_id) for kind, course_id in changes)
    return {
        "missed": sum(1 for one in wanted if one not in told),
        "false": sum(1 for one in told if one not in wanted),
        "duplicate": sum(count - 1 for count in told.values()),
    }


def _show(courses: int, measured: list[dict[str, Any]]) -> None:
    limits = {one["step"]: one["cpu"] for one in measured if one["by"] == "decoding"}
    rows = []
    for step, title in STEPS.items():
        rows.append((f"[bold]{title}[/bold]", *[""] * 9))
        for one in (each for each in measured if each["step"] == step):
            faults = (one[fault] for fault in ("missed", "false", "duplicate"))
            rows.append(
                (
                    _TITLES[one["by"]],
                    f"{one['wall']:.2f}",
                    f"{one['cpu']:.2f}",
                    f"{one['cpu'] / limits[step]:.1f}" if limits.get(step) else "",
                    f"{one['peak_mb']:.0f}",
                    "" if one["redis_mb"] is None else f"{one['redis_mb']:.1f}",
                    str(one["requests"]),
                    *("" if fault is None else str(fault) for fault in faults),
                )
            )
    costs = ("wall s", "CPU s", "x limit", "peak MB", "Redis MB", "requests")
    report.show(
        f"sweepers: {courses} courses served by a sandbox process",
        ("", *costs, "missed", "false", "twice"),
        rows,
    )
