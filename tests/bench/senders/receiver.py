"""Receivers in a process of their own: they answer at once and note every request.

Takes lines of JSON, answers each with one, and says first where it listens: `hosts`, and `dead`,
which accepts connections and never answers.

{"reset": {"fail_every": 5}}      forgets everything; each fifth request to a host gets a 500
{"await": [100, 30.0]}            returns the number of distinct deliveries when it reaches 100,
                                  or after 30 seconds
{"write": "/path"}                writes what was noted into a file
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import suppress
from datetime import datetime

import click
import msgspec

from tests.bench.senders.dialogue import questions, run, say
from tests.bench.senders.traffic import MARK_BEGIN, MARK_LENGTH, Receipt, mark_in, write
from tests.bench.subscribers import ANSWER, Connection, listener

_REFUSAL = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"
_ID = b"webhook-id: "
_TIMESTAMP = b'"timestamp":"'
_MARKED = len(MARK_BEGIN) + MARK_LENGTH


class Noted:
    """Every request since the last reset, as it came: it is taken apart when it is asked for."""

    def __init__(self) -> None:
        self.arrival = asyncio.Event()
        self.reset(0)

    def reset(self, fail_every: int) -> None:
        self._fail_every = fail_every
        self._requests: Counter[int] = Counter()
        self._noted: list[tuple[float, int, bytes, bytes, bytes, bool]] = []
        self.distinct: set[tuple[int, bytes]] = set()
        self.expected = 0

    def take(self, host: int, head: bytes, body: bytes) -> bytes:
        at = time.time()
        self._requests[host] += 1
        accepted = not self._fail_every or self._requests[host] % self._fail_every != 0
        begin = body.find(MARK_BEGIN)
        mark = body[begin : begin + _MARKED]
        self._noted.append((at, host, mark, head, body[:120], accepted))
        if accepted:
            self.distinct.add((host, mark))
            if len(self.distinct) == self.expected:
                self.arrival.set()
        return ANSWER if accepted else _REFUSAL

    async def until(self, expected: int, seconds: float) -> int:
        """Waits for the expected number of distinct deliveries, and returns their number."""
        self.expected = expected
        self.arrival.clear()
        if len(self.distinct) < expected:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.arrival.wait(), seconds)
        return len(self.distinct)

    def receipts(self) -> list[Receipt]:
        return [
            Receipt(at, host, mark_in(mark), _id(head), accepted, _detected(start))
            for at, host, mark, head, start, accepted in self._noted
        ]


class NeverAnswers(asyncio.Protocol):
    """Takes connections and says nothing."""


def _id(head: bytes) -> str:
    begin = head.lower().find(_ID)
    return head[begin + len(_ID) : head.find(b"\r", begin)].decode() if begin >= 0 else ""


def _detected(start: bytes) -> float:
    _, found, rest = start.partition(_TIMESTAMP)
    return datetime.fromisoformat(rest[:24].decode()).timestamp() if found else 0.0


async def serve(hosts: int) -> None:
    loop = asyncio.get_running_loop()
    noted = Noted()
    addresses, port = [], 0
    for number in range(hosts):
        opened = listener(number, port)
        host, port = opened.getsockname()
        addresses.append(f"{host}:{port}")
        await loop.create_server(lambda number=number: Connection(noted, number), sock=opened)
    dead = await loop.create_server(NeverAnswers, "127.0.0.1", 0)
    say({"hosts": addresses, "dead": f"127.0.0.1:{dead.sockets[0].getsockname()[1]}"})
    async for asked in questions():
        question = msgspec.json.decode(asked)
        if "reset" in question:
            noted.reset(**question["reset"])
            say("ok")
        elif "await" in question:
            say(await noted.until(*question["await"]))
        else:
            write(question["write"], noted.receipts())
            say("ok")


@click.command()
@click.option("--hosts", type=int, required=True)
def main(hosts: int) -> None:
    run(serve(hosts))


if __name__ == "__main__":
    main()
