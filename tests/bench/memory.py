"""Resident memory of a worker process during a full poll, for catalogues of several sizes."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import msgspec

from service.settings import Settings
from tests.bench import report
from tests.bench.command import Options, Several, benchmark, option
from tests.bench.memory_worker import Kind, Measured
from tests.bench.rig import embedded_server, rig

AIM_MB = 200
_ROOT = Path(__file__).parents[2]


@benchmark
@option("--courses", type=Several(int), default=[100_000, 500_000], help="sizes of the catalogue")
async def run(options: Options) -> None:
    """Measures and reports."""
    measured: list[dict[str, object]] = []
    for courses in options.courses:
        async with embedded_server() as settings:
            async with rig(settings) as registered:
                server = await report.server_version(registered.services.redis)
            for kind in ("baseline", "full"):
                found = await _measure(settings, registered.id, kind, courses)
                measured.append({"kind": kind, "courses": courses, **msgspec.to_builtins(found)})
    report.show(
        f"memory: resident MB of a worker process (aim: {AIM_MB})",
        ("poll", "courses", "before", "at most", "seconds"),
        [
            tuple(str(row[name]) for name in ("kind", "courses", "before_mb", "peak_mb", "seconds"))
            for row in measured
        ],
    )
    report.tell("memory", server, {"polls": measured, "aim_mb": AIM_MB})


async def _measure(settings: Settings, integration_id: str, kind: Kind, courses: int) -> Measured:
    """One poll in a process of its own, so that the peak is that poll's."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bench.memory_worker",
        integration_id,
        kind,
        str(courses),
        cwd=_ROOT,
        env={**os.environ, **settings.to_environ()},
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await child.communicate()
    if child.returncode:
        raise AssertionError(f"the worker process ended with {child.returncode}")
    return msgspec.json.decode(said, type=Measured)
