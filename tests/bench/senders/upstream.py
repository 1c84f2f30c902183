"""An upstream in a process of its own whose courses change when it is told so.

A delta shows the courses that changed since the time it names. Says first its port, and answers
each line of JSON with one: [[0, 1], [1, 1]] brings the objects into the states that the marks name.
"""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qsl, urlsplit

import click
import msgspec

from service.clock import now_ms
from service.sandbox.answers import page_body
from service.sandbox.content import format_time
from tests.bench.pages import PAGE_SIZE
from tests.bench.senders.dialogue import questions, run, say
from tests.bench.senders.traffic import Mark, Records
from tests.bench.upstream import Connection


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

    def answer(self, head: bytes) -> bytes:
        """A page of all courses, or of the changed courses if the request names a time. The next
        change comes after the last page."""
        query = dict(parse_qsl(urlsplit(head.split(b" ", 2)[1].decode()).query))
        since = query.get("updated_after", "")
        chosen = [mark for mark, at in zip(self._marks, self._changed, strict=True) if at >= since]
        start = int(query.get("cursor", 0))
        stop = start + PAGE_SIZE
        records = [self._records.record(mark) for mark in chosen[start:stop]]
        return page_body(records, str(stop) if stop < len(chosen) else None)


async def serve(objects: int) -> None:
    loop = asyncio.get_running_loop()
    catalogue = Catalogue(objects)
    server = await loop.create_server(lambda: Connection(catalogue.answer), "127.0.0.1", 0)
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
