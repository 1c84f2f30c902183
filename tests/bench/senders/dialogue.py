"""How a child of the benchmark is spoken with: a line of JSON each way."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import msgspec
import uvloop

_LINE_BYTES = 1 << 24


def say(answer: object) -> None:
    """Writes one line."""
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()


async def questions() -> AsyncIterator[bytes]:
    """The lines that come, until the parent closes its end."""
    reader = asyncio.StreamReader(limit=_LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while asked := await reader.readline():
        yield asked


def run(serving: Coroutine[Any, Any, None]) -> None:
    """Runs a child to its end."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serving)
