"""Full polls of a sandbox's courses by us, by what people write, by Nango's algorithm and by dlt.

Each in a process of its own, over HTTP, after the same changes, in turns: what it costs, and which
changes were missed, invented or reported twice.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from contextlib import AsyncExitStack
from importlib.util import find_spec
from statistics import median
from typing import Any

import click
import httpx
from redis.asyncio import Redis

from tests.bench import report
from tests.bench.command import Options, Several, benchmark, option
from tests.bench.peers.sweepers import CONTENDERS, Setting
from tests.bench.processes import Child, child
from tests.bench.rig import embedded_server

_KEY, _UPSTREAM = "sandbox-key", "sandbox:bench"
_SKIPPED = 20  # records that a page leaves out because the rows before it moved
_REPEATED_STEPS = ("0%", "1%", "100%")
_FAULTY_STEPS = ("touched", "shifted")  # left out of large catalogues: the findings are the same
_SLOW, _LARGE = ("script", "dlt"), 20_000  # who has one round only with more courses than these
_TITLES = {
    "decoding": "fetch and typed decode (limit)",
    "ours": "Coursewire",
    "script": "script: SHA-256, a key each",
    "nango": "Nango's algorithm, reimplemented",
    "dlt": "dlt, scd2 on DuckDB",
}
STEPS = {
    "first": "the first full poll",
    "0%": "nothing changed",
    "1%": "1 % edited, created or deleted",
    "100%": "every title edited",
    "touched": "every changed_at moved, nothing else",
    "shifted": f"a page {_SKIPPED} records short, nothing changed",
}

Wanted = dict[str, str]  # by course, what is to be reported of it


class Contender:
    """One of those that full poll."""

    def __init__(self, process: Child, redis: Redis | None) -> None:
        self.process = process
        self._redis = redis
        self._redis_before = 0.0

    async def start(self, setting: Setting) -> None:
        """Raises AssertionError if it does not start."""
        if self._redis is not None:
            self._redis_before = await self._redis_mb()
        assert await self.process.ask(setting) == "ready"

    async def full_poll(self) -> dict[str, Any]:
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
        return {one["course_id"]: kinds.get(one["op"], "updated") for one in made}

    async def shift(self, upstream_id: str) -> None:
        """Has one page of the next poll leave records out."""
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


@benchmark
@option("--courses", type=Several(int), default=[10_000, 100_000])
@option("--rounds", default=3, help="of each")
@option("--contenders", type=Several(click.Choice([*CONTENDERS])), default=[*CONTENDERS])
async def run(options: Options) -> None:
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
            measured += await _compare(sandbox, courses, contenders, options.rounds)
    for courses in options.courses:
        _show(courses, [one for one in measured if one["courses"] == courses])
    report.tell("sweepers", report.EMBEDDED, {"full_polls": measured})


async def _compare(
    sandbox: Sandbox, courses: int, names: list[str], rounds: int
) -> list[dict[str, Any]]:
    upstream_id = await sandbox.create(courses)
    measured = []
    async with AsyncExitStack() as stack:
        contenders = {name: await _contender(stack, sandbox, upstream_id, name) for name in names}
        unseen: dict[str, Wanted] = {name: {} for name in names}
        for step in STEPS:
            if step in _FAULTY_STEPS and courses > _LARGE:
                continue
            found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
            for number in range(rounds if step in _REPEATED_STEPS else 1):
                wanted = await _prepare(sandbox, upstream_id, step, courses)
                unseen = {name: _followed(before, wanted) for name, before in unseen.items()}
                for name in _in_turns(names, number):
                    if courses > _LARGE and name in _SLOW and number:
                        continue
                    if step == "shifted":
                        await sandbox.shift(upstream_id)
                    await sandbox.served()
                    took = await contenders[name].full_poll()
                    took["requests"] = await sandbox.served()
                    found[name].append(
                        {**took, **_judged(step, name, unseen[name], took["changes"])}
                    )
                    unseen[name] = {}
            measured += [
                {"courses": courses, "step": step, "by": name, **_middle(runs, courses)}
                for name, runs in found.items()
            ]
    return measured


def _in_turns(names: list[str], number: int) -> list[str]:
    """Another begins in each round."""
    first = number % len(names)
    return names[first:] + names[:first]


def _middle(runs: list[dict[str, Any]], courses: int) -> dict[str, Any]:
    """Medians of what the rounds took; the most of memory and of what was reported wrongly."""
    cpu = median(one["cpu"] for one in runs)
    redis = [one["redis_mb"] for one in runs if one["redis_mb"] is not None]
    return {
        "rounds": len(runs),
        "wall": round(median(one["wall"] for one in runs), 3),
        "cpu": round(cpu, 3),
        "cpu_least": round(min(one["cpu"] for one in runs), 3),
        "cpu_most": round(max(one["cpu"] for one in runs), 3),
        "cpu_us_per_record": round(cpu / courses * 1e6, 2),
        "peak_mb": round(max(one["peak_mb"] for one in runs), 1),
        "redis_mb": round(max(redis), 2) if redis else None,
        "requests": max(one["requests"] for one in runs),
        **{
            fault: None if runs[0][fault] is None else max(one[fault] for one in runs)
            for fault in ("missed", "false", "duplicate")
        },
    }


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
    return {}


def _followed(before: Wanted, later: Wanted) -> Wanted:
    """What is to be reported of both by who did not full poll in between."""
    both = dict(before)
    for course_id, kind in later.items():
        if before.get(course_id) != "created":
            both[course_id] = kind
        elif kind == "deleted":
            del both[course_id]
    return both


def _judged(
    step: str, name: str, wanted: Wanted, changes: list[tuple[str, str]]
) -> dict[str, int | None]:
    """How many changes were missed, invented and reported twice."""
    if step == "first" or name == "decoding":
        return {"missed": None, "false": None, "duplicate": None}
    told = Counter((kind, course_id) for kind, course_id in changes)
    return {
        "missed": sum(1 for course_id, kind in wanted.items() if (kind, course_id) not in told),
        "false": sum(1 for kind, course_id in told if wanted.get(course_id) != kind),
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
        f"sweepers: {courses} courses served by a sandbox process; medians of "
        f"{max(one['rounds'] for one in measured)} rounds{_spared(measured)}",
        ("", *costs, "missed", "false", "twice"),
        rows,
    )


def _spared(measured: list[dict[str, Any]]) -> str:
    """Who had one round only."""
    names = {one["by"] for one in measured if one["step"] in _REPEATED_STEPS and one["rounds"] == 1}
    rounds = {one["rounds"] for one in measured if one["step"] in _REPEATED_STEPS}
    return f" ({', '.join(sorted(names))}: one)" if len(rounds) > 1 else ""
