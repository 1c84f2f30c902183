"""An upstream in a process of its own that costs little: it answers at once and notes who asked.

Every integration has the same courses, one unless it is told otherwise; a delta shows nothing. A
few lines of HTTP of their own instead of the sandbox, so that on two cores the service is what is
measured. Says first its port, and answers each line of JSON with one: {"since": 1795424001.5} asks
when, in epoch seconds, each integration was asked for a page since then; {"absent": [7]} takes
courses away by their numbers, if the pages are generated.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import cast

import click
import msgspec
import uvloop

from service.clock import now_ms
from service.sandbox.answers import date_header, page_body
from tests.bench import pages

_END = b"\r\n\r\n"
_INTEGRATION = b"\r\nx-integration-id: "
_CURSOR = b"cursor="


class Connection(asyncio.Protocol):
    """One connection of a worker. `answer` gives the page for the head of a request."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self._answer = answer
        self._pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._pending += data
        while (end := self._pending.find(_END)) >= 0:
            head = self._pending[:end]
            self._pending = self._pending[end + len(_END) :]
            body = self._answer(head)
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ndate: %b\r\n"
                b"content-length: %d\r\n\r\n%b" % (date_header(now_ms()).encode(), len(body), body)
            )


class Upstream:
    """Prepared or generated pages, and the times at which each integration requested one."""

    empty = page_body([], None)

    def __init__(self, body: pages.Body, ends: Callable[[], bytes]) -> None:
        self.arrivals: defaultdict[str, list[float]] = defaultdict(list)
        self._body = body
        self._ends = ends

    def answer(self, head: bytes) -> bytes:
        """The page for the head of a request."""
        lower = head.lower()
        at = lower.find(_INTEGRATION) + len(_INTEGRATION)
        stop = lower.find(b"\r", at)
        name = head[at : stop if stop >= 0 else None].decode()
        self.arrivals[name].append(time.time())
        if b"updated_after=" in lower:
            return self.empty
        if b"&ids=" in lower:
            return self._ends()
        return self._body(_page(lower))


def _page(head: bytes) -> int:
    """The number of the page asked for: that is what the cursors of prepared pages are."""
    query = head.partition(b"\r\n")[0].split(b" ")[1].partition(b"?")[2]
    cursors = [part for part in query.split(b"&") if part.startswith(_CURSOR)]
    return int(cursors[0][len(_CURSOR) :]) if cursors else 0


async def serve(courses: int, *, generated: bool) -> None:
    loop = asyncio.get_running_loop()
    catalogue = pages.Generated(courses)
    body = catalogue if generated else pages.prepared(courses, pages.shortened).__getitem__
    upstream = Upstream(body, catalogue.ends)
    server = await loop.create_server(lambda: Connection(upstream.answer), "127.0.0.1", 0)
    _say(server.sockets[0].getsockname()[1])
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while asked := await reader.readline():
        question = msgspec.json.decode(asked)
        if "absent" in question:
            catalogue.absent = {*question["absent"]}
            _say("ok")
            continue
        since = question["since"]
        _say(
            {
                name: later
                for name, times in upstream.arrivals.items()
                if (later := [one for one in times if one >= since])
            }
        )


def _say(answer: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()


@click.command()
@click.option("--courses", default=1)
@click.option("--generated", is_flag=True, help="holds no page in memory")
def main(courses: int, *, generated: bool) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(courses, generated=generated))


if __name__ == "__main__":
    main()
