"""One poll in a process with a worker's modules, which reports the memory it took."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from pathlib import Path
from typing import Literal

import msgspec
import uvloop

import workers.worker
from service.logs import configure
from service.settings import Settings
from tests.bench import pages
from tests.bench.rig import rig

Kind = Literal["baseline", "full"]

# A worker process has these modules in memory too, whatever it does.
_ = workers.worker


class Measured(msgspec.Struct, frozen=True):
    """Resident memory in MB (10^6 bytes) before the poll and at its peak; the poll's seconds."""

    before_mb: float
    peak_mb: float
    seconds: float


async def measure(integration_id: str, kind: Kind, courses: int) -> Measured:
    """Polls once."""
    async with rig(Settings.from_env(os.environ), integration_id) as poller:
        pages.serve(poller.services.upstream, pages.Generated(courses))
        before = peak_bytes()
        polled = await (poller.baseline if kind == "baseline" else poller.full_poll)(courses)
    return Measured(
        round(before / 1e6, 1), round(peak_bytes() / 1e6, 1), seconds=round(polled.wall, 1)
    )


def peak_bytes() -> int:
    """The most memory this program had resident so far, in bytes."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # not Linux, and so most likely macOS, which counts in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not `ru_maxrss`: on Linux that includes the parent's peak from before the exec.
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def main() -> None:
    """Takes the integration, the kind and the number of courses; prints one line of JSON."""
    configure("console", "warning", "bench")
    integration_id, kind, courses = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        measured = runner.run(measure(integration_id, kind, int(courses)))
    sys.stdout.write(msgspec.json.encode(measured).decode() + "\n")


if __name__ == "__main__":
    main()
