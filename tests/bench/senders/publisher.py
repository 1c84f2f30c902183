"""A publisher in a process of its own: one request for each event, sent again until accepted.

Takes lines of JSON, one for each load, and answers with a line when all of it is accepted:

{"targets": ["127.0.0.1:3333"], "path": "/publish", "token": "...", "envelope": ["{", "}"],
 "run": "r1", "batches": [[[0, 1], [1, 1]]], "pace": 0.2, "patience": 60.0, "into": "/path"}

An event goes to each of the targets. The envelope is what stands around the payload; `{id}` in it
becomes the event's id. A batch begins `pace` seconds after the one before. `stored` is the status
by which a sender says that it has an event of this id.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import cast

import msgspec

from tests.bench.senders.dialogue import questions, run, say
from tests.bench.senders.traffic import Mark, Publication, Records, write

LANES = 64  # requests at a time; an object has one of them, so its events keep their order
_AGAIN = (409, 429)  # what a request is sent again after: its id is at work, or there are too many
_AGAIN_SECONDS = 0.1
_END = b"\r\n\r\n"
_LENGTH = b"content-length: "


class Load(msgspec.Struct, frozen=True):
    """What to publish, and how."""

    targets: list[str]
    path: str
    envelope: tuple[str, str]
    run: str
    batches: list[list[Mark]]
    into: str
    token: str = ""
    stored: int = 0
    pace: float = 0.0
    patience: float = 60.0


class Answers(asyncio.Protocol):
    """A connection that is asked one thing at a time."""

    def __init__(self) -> None:
        self._pending = b""
        self._answer: asyncio.Future[int] | None = None
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("closed"))

    def data_received(self, data: bytes) -> None:
        self._pending += data
        end = self._pending.find(_END)
        if end < 0 or self._answer is None:
            return
        head = self._pending[:end].lower()
        if b"transfer-encoding: chunked" in head:
            complete = self._pending.endswith(b"0\r\n\r\n")
        else:
            at = head.find(_LENGTH)
            length = int(head[at + len(_LENGTH) :].split(b"\r", 1)[0]) if at >= 0 else 0
            complete = len(self._pending) >= end + len(_END) + length
        if complete and not self._answer.done():
            self._answer.set_result(int(head[9:12]))
            self._pending = b""

    async def ask(self, request: bytes, seconds: float) -> int:
        """Sends a request; returns the status of the answer."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await asyncio.wait_for(self._answer, seconds)

    def close(self) -> None:
        self._transport.close()


class Lane:
    """Publishes its events one after another, over one connection to each target."""

    def __init__(self, load: Load, records: Records) -> None:
        self._load = load
        self._records = records
        self._connections: dict[str, Answers] = {}
        self.items: list[tuple[float, str, Mark]] = []
        self.publications: list[Publication] = []

    async def run(self, begun: float) -> None:
        try:
            for due, target, mark in self.items:
                if (wait := begun + due - time.time()) > 0:
                    await asyncio.sleep(wait)
                await self._publish(target, mark)
        finally:
            for connection in self._connections.values():
                connection.close()

    async def _publish(self, target: str, mark: Mark) -> None:
        request = self._request(target, mark)
        sent = time.time()
        tries = 0
        while True:
            tries += 1
            try:
                status = await (await self._connection(target)).ask(request, self._load.patience)
            except (OSError, TimeoutError):
                status = 0
            if 200 <= status < 300 or (status and status == self._load.stored):
                self.publications.append(Publication(mark, sent, time.time(), status, tries))
                return
            if 400 <= status < 500 and status not in _AGAIN:
                raise AssertionError(f"the sender answered {status} to an event")
            if time.time() > sent + self._load.patience:
                raise AssertionError(f"the sender does not accept an event: {status or 'silence'}")
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _connection(self, target: str) -> Answers:
        known = self._connections.get(target)
        if known is None or known.closed:
            host, _, port = target.partition(":")
            loop = asyncio.get_running_loop()
            _, known = await loop.create_connection(Answers, host, int(port))
            self._connections[target] = known
        return known

    def _request(self, target: str, mark: Mark) -> bytes:
        name = f"{self._load.run}-{mark[0]}-{mark[1]}"
        before, after = (part.replace("{id}", name).encode() for part in self._load.envelope)
        body = before + self._records.payload(mark) + after
        return (
            f"POST {self._load.path} HTTP/1.1\r\nhost: {target}\r\nwebhook-id: {name}\r\n"
            f"authorization: Bearer {self._load.token}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        ).encode() + body


async def publish(load: Load, records: Records) -> Sequence[Publication]:
    """Has a load published; returns what became of it."""
    lanes = [Lane(load, records) for _ in range(LANES)]
    for number, batch in enumerate(load.batches):
        for mark in batch:
            for which, target in enumerate(load.targets):
                lane = which if len(load.targets) > 1 else mark[0]
                lanes[lane % LANES].items.append((number * load.pace, target, mark))
    async with asyncio.TaskGroup() as group:
        begun = time.time()
        for lane in lanes:
            group.create_task(lane.run(begun))
    return [one for lane in lanes for one in lane.publications]


async def serve() -> None:
    records = Records()
    say("ready")
    async for asked in questions():
        load = msgspec.json.decode(asked, type=Load)
        try:
            published = await publish(load, records)
        except ExceptionGroup as refused:
            say({"refused": str(refused.exceptions[0])})
            continue
        write(load.into, published)
        say({"accepted": len(published)})


if __name__ == "__main__":
    run(serve())
