"""An upstream in a process of its own whose courses change when it is told so.

A delta shows the courses that changed since the time it names. Says first its port, and answers
each line of JSON with one: [[0, 1], [1, 1]] brings the objects into the states that the marks name.
"""

from __future__ import annotations

import asyncio
from typing import cast
from urllib.parse import parse_qsl, urlsplit

import click
import msgspec

from service.clock import now_ms
from service.sandbox.answers import date_header, page_body
from service.sandbox.content import format_time
from tests.bench.pages import PAGE_SIZE
from tests.bench.senders.dialogue import questions, run, say
from tests.bench.senders.traffic import Mark, Records

_END = b"\r\n\r\n"


class Catalogue:
    """The courses, in their newest states."""

    def __init__(self, objects: int) -> None:
        self._records = Records()
        self._marks: list[Mark] = [(number, 0) for number in range(objects)]
        self._changed = [""] * objects

    def change(self, marks: list[Mark]) -> None:
        at = format_time(now_ms())
        for mark in marks:
            self._marks[mark[0]] = mark
            self._changed[mark[0]] = at

    def page(self, query: dict[str, str]) -> bytes:
        """A page of the courses, or of the changed ones if the query names a time. Whoever asks
        waits with the next change until the last page."""
        since = query.get("updated_after", "")
        chosen = [mark for mark, at in zip(self._marks, self._changed, strict=True) if at >= since]
        start = int(query.get("cursor", 0))
        stop = start + PAGE_SIZE
        records = [self._records.record(mark) for mark in chosen[start:stop]]
        return page_body(records, str(stop) if stop < len(chosen) else None)


class Connection(asyncio.Protocol):
    """One connection of a worker."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._pending += data
        while (end := self._pending.find(_END)) >= 0:
            target = self._pending.split(b" ", 2)[1].decode()
            self._pending = self._pending[end + len(_END) :]
            body = self._catalogue.page(dict(parse_qsl(urlsplit(target).query)))
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ndate: %b\r\n"
                b"content-length: %d\r\n\r\n%b" % (date_header(now_ms()).encode(), len(body), body)
            )


async def serve(objects: int) -> None:
    loop = asyncio.get_running_loop()
    catalogue = Catalogue(objects)
    server = await loop.create_server(lambda: Connection(catalogue), "127.0.0.1", 0)
    say(server.sockets[0].getsockname()[1])
    async for asked in questions():
        catalogue.change(msgspec.json.decode(asked, type=list[Mark]))
        say("ok")


@click.command()
@click.option("--objects", type=int, required=True)
def main(objects: int) -> None:
    run(serve(objects))


if __name__ == "__main__":
    main()
