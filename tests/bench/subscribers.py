"""Subscribers in a process of their own: they answer 204 at once and note what arrived when.

A few lines of HTTP of their own instead of a server's, so that the sender is what is measured.
Takes lines of JSON, answers each with one, and says first where it listens, a host each:

{"reset": {"expected": 100}}  forgets everything
{"await": 30.0}               answers once so many deliveries arrived, or the seconds are over
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from contextlib import suppress
from datetime import datetime
from typing import Any, Protocol, cast

import click
import msgspec
import uvloop
from standardwebhooks import Webhook, WebhookVerificationError

_END = b"\r\n\r\n"
_LENGTH = b"content-length: "
_ID = b"webhook-id: "
ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class Receipts:
    """What arrived since the last reset."""

    def __init__(self, secret: str | None, *, forget: bool = False) -> None:
        self._forget = forget
        self._webhook = Webhook(secret) if secret else None
        self.complete = asyncio.Event()
        self.reset(1)

    def reset(self, expected: int) -> None:
        self.expected = expected
        self.refused = self.swapped = 0
        self._sequences: dict[tuple[int, str], int] = {}
        self._ids: set[tuple[int, bytes]] = set()
        self._arrivals: list[tuple[float, bytes]] = []  # and the first bytes of the body
        self.complete.clear()

    def take(self, host: int, head: bytes, body: bytes) -> bytes:
        """Notes a delivery, and returns the answer to it."""
        if self._forget:
            return ANSWER
        arrived = time.time()
        if self._webhook is not None:
            self._verify(self._webhook, host, head, body)
        at = head.find(_ID) + len(_ID)
        self._ids.add((host, head[at : head.find(b"\r", at)]))
        self._arrivals.append((arrived, body[:120]))
        if len(self._ids) >= self.expected:
            self.complete.set()
        return ANSWER

    def _verify(self, webhook: Webhook, host: int, head: bytes, body: bytes) -> None:
        lines = (line.partition(": ") for line in head.decode("latin-1").split("\r\n")[1:])
        try:
            event = webhook.verify(body, {name.lower(): value for name, _, value in lines})
        except WebhookVerificationError:
            self.refused += 1
            return
        course = (host, str(event["data"].get("course_id")))
        sequence = int(event["data"].get("sequence") or 0)
        self.swapped += sequence < self._sequences.get(course, 0)
        self._sequences[course] = sequence

    def told(self) -> dict[str, Any]:
        """Times are epoch seconds; latencies, from the body's time to the arrival, ms in order."""
        arrivals = [arrived for arrived, _ in self._arrivals]
        latencies = []
        for arrived, start in self._arrivals:
            _, found, rest = start.partition(b'"timestamp":"')
            if found:
                detected = datetime.fromisoformat(rest[:24].decode()).timestamp()
                latencies.append((arrived - detected) * 1000)
        latencies.sort()
        return {
            "received": len(arrivals),
            "distinct": len(self._ids),
            "duplicates": len(arrivals) - len(self._ids),
            "refused": self.refused,
            "swapped": self.swapped,
            "first": min(arrivals, default=0.0),
            "last": max(arrivals, default=0.0),
            "p50_ms": _quantile(latencies, 0.5),
            "p99_ms": _quantile(latencies, 0.99),
            "max_ms": _quantile(latencies, 1.0),
        }


class Takes(Protocol):
    """Whoever notes deliveries and answers them."""

    def take(self, host: int, head: bytes, body: bytes) -> bytes: ...


class Connection(asyncio.Protocol):
    """One connection of one subscriber."""

    def __init__(self, receipts: Takes, host: int) -> None:
        self._receipts = receipts
        self._host = host
        self._pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        pending = self._pending + data if self._pending else data
        while (end := pending.find(_END)) >= 0:
            head = pending[:end]
            lower = head if _LENGTH in head else head.lower()
            if _LENGTH not in lower:  # not a delivery: somebody took this for another's port
                self._transport.close()
                return
            at = lower.find(_LENGTH) + len(_LENGTH)
            stop = lower.find(b"\r", at)
            length = int(lower[at : stop if stop >= 0 else None])
            start = end + len(_END)
            if len(pending) < start + length:
                break
            body = pending[start : start + length]
            self._transport.write(self._receipts.take(self._host, head, body))
            pending = pending[start + length :]
        self._pending = pending


async def serve(count: int, secret: str | None, *, forget: bool) -> None:
    loop = asyncio.get_running_loop()
    receipts = Receipts(secret, forget=forget)
    hosts = []
    port = 0
    for number in range(count):
        opened = listener(number, port)
        host, port = opened.getsockname()
        hosts.append(f"{host}:{port}")
        await loop.create_server(lambda number=number: Connection(receipts, number), sock=opened)
    _say(hosts)
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while asked := await reader.readline():
        question = msgspec.json.decode(asked)
        if "reset" in question:
            receipts.reset(**question["reset"])
            _say("ok")
            continue
        with suppress(TimeoutError):  # whoever asked sees that too little has arrived
            await asyncio.wait_for(receipts.complete.wait(), question["await"])
        _say(receipts.told())


def listener(number: int, port: int) -> socket.socket:
    """A host of its own: another loopback address, or where there is but one, another port."""
    if sys.platform == "linux":
        return socket.create_server((f"127.0.{1 + number // 250}.{1 + number % 250}", port))
    return socket.create_server(("127.0.0.1", 0))


def _quantile(ordered: list[float], share: float) -> float | None:
    if not ordered:
        return None
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 2)


def _say(answer: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()


@click.command()
@click.option("--hosts", type=int, required=True)
@click.option("--secret", help="verifies signatures and order too")
@click.option("--forget", is_flag=True, help="notes nothing of what arrives")
def main(hosts: int, secret: str | None, *, forget: bool) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(hosts, secret, forget=forget))


if __name__ == "__main__":
    main()
