"""The jobs that tests let real worker processes run, and such a process itself."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from service.logs import configure
from workers.rq import event_loop as process
from workers.rq.registration import Pace
from workers.rq.serving import Line, leave, serve


class Orders(msgspec.Struct, kw_only=True):
    """How the worker process is to run."""

    url: str
    lines: list[Line]
    drain_seconds: float = 20.0
    pace: Pace = Pace()


def work(path: str, heeds_draining: bool = True) -> None:
    """Runs until the file `path`.go exists, and leaves a file for what happened."""
    process.perform(_work, Path(path), heeds_draining)


def fail() -> None:
    process.perform(_fail)


async def _work(draining: asyncio.Event, path: Path, heeds_draining: bool) -> None:
    path.with_suffix(".started").touch()
    try:
        while not path.with_suffix(".go").exists():
            if heeds_draining and draining.is_set():
                path.with_suffix(".handed_back").touch()
                return
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        path.with_suffix(".cancelled").touch()
        raise
    path.with_suffix(".done").touch()


async def _fail(draining: asyncio.Event) -> None:
    raise ValueError("https://user:hunter2@example.test/?token=hunter2")


@asynccontextmanager
async def open_context(draining: asyncio.Event) -> AsyncIterator[asyncio.Event]:
    yield draining


if __name__ == "__main__":
    orders = msgspec.json.decode(sys.argv[1], type=Orders)
    configure("json", "debug", "worker")
    leave(
        serve(
            open_context,
            orders.url,
            orders.lines,
            drain_seconds=orders.drain_seconds,
            pace=orders.pace,
        )
    )
