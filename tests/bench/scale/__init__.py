"""The largest installations: what grows faster than the number of items, and what blocks Redis.

Each scene runs at a hundredth, at a tenth and at the whole of its size, each time with a server of
its own. The server's memory is limited to what the scene needs and half as much again; a scene that
does not fit into the memory of the machine is refused before it begins.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import msgspec

from tests.bench import report
from tests.bench.command import Options, Several, benchmark, option
from tests.bench.scale import delivering, polling, reading
from tests.bench.scale.installation import Installation, Step, installation

SHARES = (0.01, 0.1, 1.0)
_PROCESSES_BYTES = 2_000_000_000  # for the processes beside the server


class Scene(msgspec.Struct, frozen=True):
    """A scene: its function, the default number of items, the maximum bytes of server memory for
    each item, and a description of the items."""

    run: Callable[[Installation, int], Awaitable[None]]
    size: int
    bytes_each: int
    of: str

    def need(self, size: int) -> int:
        """Bytes of the server's memory."""
        return size * self.bytes_each


SCENES = {
    "courses": Scene(polling.courses, 10_000_000, 320, "in ten integrations"),
    "integrations": Scene(polling.integrations, 100_000, 6_000, "due every ten minutes"),
    "subscriptions": Scene(delivering.subscriptions, 10_000, 8_000, "that match one event"),
    "deliveries": Scene(delivering.deliveries, 5_000_000, 320, "pending in ten outboxes"),
    "events": Scene(reading.events, 1_000_000, 2_000, "read by cursor"),
    "lists": Scene(
        reading.lists,
        1_000_000,
        2_000,
        "events and courses that the console lists; a tenth of integrations, a hundredth of "
        "subscriptions",
    ),
}


def _sizes(run: Any) -> Any:
    for name in reversed(SCENES):
        run = option(f"--{name}", default=SCENES[name].size, help=SCENES[name].of)(run)
    return run


@benchmark
@_sizes
@option("--factor", default=1.0, help="of all sizes")
@option("--scenes", type=Several(click.Choice([*SCENES])), default=[*SCENES])
@option("--seconds", default=30.0, help="that polls on schedule are watched")
@option("--patience", default=3_600.0, help="seconds that a step may take")
async def run(options: Options) -> None:
    """Measures and reports."""
    sizes = {
        name: max(1, round(getattr(options, name) * options.factor)) for name in options.scenes
    }
    for name, size in sizes.items():
        check_room(name, size, available_bytes(), shutil.disk_usage(tempfile.gettempdir()).free)
    found: dict[str, dict[int, list[Step]]] = {}
    version = report.EMBEDDED
    for name, size in sizes.items():
        measured = found.setdefault(name, {})
        for each in sorted({max(1, round(size * share)) for share in SHARES}):
            async with installation(SCENES[name].need(each), options) as one:
                version = await report.server_version(one.services.redis)
                await SCENES[name].run(one, each)
            measured[each] = one.steps
            _show(f"scale: {each:,} {name}", one.steps, next(iter(measured.values())))
    report.tell("scale", version, {"scenes": msgspec.to_builtins(found)})


def available_bytes() -> int:
    """Memory that new processes can have without swapping; no bound where that is not told."""
    found = [sys.maxsize]
    with suppress(OSError):  # not Linux
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [int(one.split()[1]) * 1024 for one in lines if one.startswith("MemAvailable:")]
    with suppress(OSError, ValueError):  # no container, or one without a limit
        limit, used = (Path(f"/sys/fs/cgroup/memory.{of}").read_text() for of in ("max", "current"))
        found.append(int(limit) - int(used))
    return min(found)


def check_room(name: str, size: int, memory: int, disk: int) -> None:
    """Ends the program with a sentence that names the size that fits, unless this one does."""
    scene = SCENES[name]
    # The server may use half as much again as the scene needs, and rewriting the append-only file
    # may double that; the file and its successor are on the disk at the same time.
    for of, room, fixed, times in (("memory", memory, _PROCESSES_BYTES, 3), ("disk", disk, 0, 6)):
        need = times * scene.need(size) + fixed
        if need > room:
            fitting = max(0, (room - fixed) // (times * scene.bytes_each))
            raise SystemExit(
                f"scale: {size:,} {name} need {need / 1e9:.1f} GB of {of}, and {room / 1e9:.1f} GB "
                f"are available, which is enough for {fitting:,}: set --{name}"
            )


def _show(title: str, steps: list[Step], least: list[Step]) -> None:
    """`least` are the same steps at the smallest size."""
    report.show(
        f"{title}; growth is the processors' time of an item beside that at the least size",
        ("", "items", "s", "CPU µs each", "growth", "server B each", "MB", "blocks ms", "in"),
        [
            (
                step.name,
                f"{step.items:,}",
                f"{step.seconds:.2f}",
                f"{step.cpu / step.items * 1e6:.1f}",
                f"{step.cpu / step.items / (first.cpu / first.items):.2f}" if first.cpu else "",
                f"{step.server_bytes / step.items:.0f}",
                ", ".join(f"{part} {mb:.0f}" for part, mb in step.process_mb.items()),
                f"{step.blocked_ms:.0f}" if step.blocked_ms else "",
                step.blocked_by,
            )
            for step, first in zip(steps, least, strict=True)
        ],
    )
    figures = [
        (name.replace("_", " "), str(value), str(first.figures.get(name, "")))
        for step, first in zip(steps, least, strict=True)
        for name, value in step.figures.items()
    ]
    if figures:
        report.show(title, ("", "", "at the least size"), figures)
