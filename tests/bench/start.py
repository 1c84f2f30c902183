"""Seconds from `coursewire up` until it is ready, and how much is installed for it."""

from __future__ import annotations

import asyncio
import re
import socket
import tempfile
import time
from importlib.metadata import PackageNotFoundError, distribution
from statistics import median

from tests.bench import report
from tests.bench.command import Options, benchmark, option
from tests.bench.processes import ROOT, child
from tests.conftest import free_port

AIM_SECONDS = 3.0
_PATIENCE_SECONDS = 60.0
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==", re.MULTILINE)


@benchmark
@option("--rounds", default=5)
async def run(options: Options) -> None:
    """Measures and reports."""
    rounds = [await _start() for _ in range(options.rounds)]
    seconds = [took for took, _ in rounds]
    cpu = [spent for _, spent in rounds]
    size, packages = _installed()
    results = {
        "rounds": options.rounds,
        "seconds": round(median(seconds), 2),
        "seconds_least": round(min(seconds), 2),
        "seconds_most": round(max(seconds), 2),
        "cpu_seconds": round(median(cpu), 2),
        "aim_seconds": AIM_SECONDS,
        "installed_mb": round(size / 1e6, 1),
        "packages": packages,
    }
    report.show(
        f"start: from `coursewire up` in an empty directory until /readyz says 200, "
        f"{options.rounds} times (aim {AIM_SECONDS:g} s)",
        ("", "median", "least", "most"),
        [
            ("seconds", *(str(results[f"seconds{which}"]) for which in ("", "_least", "_most"))),
            ("processor seconds of all parts", f"{results['cpu_seconds']}", "", ""),
            (f"installed MB, {packages} packages", f"{results['installed_mb']}", "", ""),
        ],
    )
    report.tell("start", report.EMBEDDED, results)


async def _start() -> tuple[float, float]:
    """One start, from nothing: seconds, and processor seconds of all processes."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="coursewire-bench-") as directory:
        environment = {
            "COURSEWIRE_DATA_DIR": directory,
            "COURSEWIRE_PORT": str(port),
            "COURSEWIRE_LOG_LEVEL": "error",
        }
        begun = time.perf_counter()
        async with child("service.cli", "up", environment=environment, noisy=False) as service:
            while not await _is_ready(port):
                if time.perf_counter() - begun > _PATIENCE_SECONDS:
                    raise AssertionError("the service does not become ready")
                await asyncio.sleep(0.01)
            return time.perf_counter() - begun, service.tree_cpu_seconds()


async def _is_ready(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, family=socket.AF_INET)
    except OSError:
        return False
    try:
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return b" 200 " in await reader.readline()
    except OSError:
        return False
    finally:
        writer.close()


def _installed() -> tuple[int, int]:
    """Bytes of the packages that the service needs, and how many those are on this machine."""
    size = packages = 0
    for name in _PIN.findall((ROOT / "requirements.lock").read_text()):
        try:
            found = distribution(name)
        except PackageNotFoundError:  # for another system, or another Python
            continue
        packages += 1
        for file in found.files or ():
            path = file.locate()
            if path.is_file():
                size += path.stat().st_size
    return size, packages
