"""A server's end of a connection as a bare socket, on which anything can be sent at any point.

A client that finds bytes it did not ask for on an idle connection must close the connection. It
can only do so if the bytes arrived before it wrote its next request. Bytes that arrive later look
like the answer to that request, and no client can tell the difference. So unasked bytes are sent
only while no request waits to be read, and `Stray` says what may be concluded afterwards:

- If a request arrives within `DOUBT_SECONDS` of the bytes, it may have crossed them. Whatever the
  client makes of them is right.
- If none does, every later request on the connection was written by a client that could have
  known better.
- A status of 400 or more that comes before the first request of a connection refuses that request.
  A client may send the request however late, and take the status for its answer.
"""

from __future__ import annotations

import asyncio
import enum
import re
import select
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final

import msgspec

DOUBT_SECONDS: Final = 0.05
AT_ONCE_BYTES: Final = 16_384  # an answer of this size and what follows it arrive together
_READ: Final = 65_536
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: no time, so that closing is a reset
_LINE: Final = re.compile(rb"[\r\n]*HTTP/[0-9]\.[0-9] ([1-9][0-9]{2})(?:[ \r][^\n]*)?\n")
_HEAD_END: Final = re.compile(rb"\n\r?\n")


class Stray(enum.Enum):
    """What is known of bytes that a connection carried unasked."""

    NONE = enum.auto()
    IN_DOUBT = enum.auto()
    KNOWN = enum.auto()


class Request(msgspec.Struct, frozen=True):
    """One request. Names of headers are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


class Wire:
    """One accepted connection. Only one task uses it."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = sock
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN | select.POLLHUP | select.POLLERR)
        self._buffer = b""
        self._requested = False
        self.stray = Stray.NONE
        self.unasked = b""  # the bytes

    async def request(self) -> Request | None:
        """The next request; None when the client has gone."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if not await self._receive():
                return None
        start, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        method, target, _ = start.split(" ")
        fields = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in fields}
        end += 4
        length = end + int(headers.get("content-length", 0))
        while len(self._buffer) < length:
            if not await self._receive():
                return None
        body, self._buffer = self._buffer[end:length], self._buffer[length:]
        self._requested = True
        return Request(method, target, headers, body)

    async def _receive(self) -> bool:
        received = await asyncio.get_running_loop().sock_recv(self._socket, _READ)
        self._buffer += received
        return bool(received)

    async def send(self, data: bytes) -> None:
        """Sends bytes. Raises OSError when the client has gone."""
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def send_followed(self, answer: bytes, stray: bytes, after: float) -> bool:
        """Sends an answer and then, unasked, `stray`: in the same segment, or `after` so many
        seconds in which no request comes. Returns whether they were sent."""
        if after == 0 and len(answer) + len(stray) <= AT_ONCE_BYTES:
            await self.send(answer + stray)
            self.unasked += stray
            self.stray = Stray.KNOWN
            return True
        await self.send(answer)
        return await self.send_unasked(stray, after)

    async def send_unasked(self, stray: bytes, after: float = 0.0) -> bool:
        """Sends bytes once no request has come for `after` seconds; returns whether they were."""
        if not await self.quiet(after) or self._readable():
            return False
        await self.send(stray)
        self.unasked += stray
        if self.stray is not Stray.KNOWN:
            in_time = await self.quiet(DOUBT_SECONDS) and not self._refuses()
            self.stray = Stray.KNOWN if in_time else Stray.IN_DOUBT
        return True

    def _refuses(self) -> bool:
        """Whether the unasked bytes refuse the first request of the connection."""
        return not self._requested and (status_said(self.unasked) or 0) >= 400

    def _readable(self) -> bool:
        return bool(self._buffer) or bool(self._poll.poll(0))

    async def quiet(self, seconds: float) -> bool:
        """Waits, and returns whether the client sent nothing, nor went, all the while."""
        if self._readable():
            return False
        loop = asyncio.get_running_loop()
        came = loop.create_future()
        loop.add_reader(self._socket, _settle, came)
        try:
            await asyncio.wait([came], timeout=seconds)
        finally:
            loop.remove_reader(self._socket)
        return not came.done()

    def reset(self) -> None:
        """Ends the connection so that what was not read yet is lost."""
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._socket.close()

    def close(self) -> None:
        """Ends the connection. What was sent still arrives, even if a request was not read."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        self._socket.close()


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Server:
    """Accepts connections on a free port of loopback; `serve` has each of them until it ends."""

    def __init__(self, serve: Callable[[Wire], Awaitable[None]]) -> None:
        self._serve = serve
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._socket.setblocking(False)
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []  # of the server, not of its clients
        self.url = "http://{}:{}".format(*self._socket.getsockname())

    def start(self) -> None:
        """Begins to accept; connections that came before are waiting."""
        self._keep(self._accept())

    def _keep(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._failures.append(failure)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(self._socket)
            self._keep(self._connection(Wire(sock)))

    async def _connection(self, wire: Wire) -> None:
        try:
            await self._serve(wire)
        except OSError:
            pass  # the client has gone
        finally:
            wire.close()

    async def close(self) -> None:
        """Ends everything. Raises what the server itself failed with."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._socket.close()
        if self._failures:
            raise self._failures[0]


def status_said(answer: bytes) -> int | None:
    """The status that the bytes of an answer say, from their first complete status line that is
    not of an interim answer. Empty lines before it are passed by. None if they say none."""
    while (line := _LINE.match(answer)) is not None:
        status = int(line[1])
        if status >= 200 or status == 101:
            return status
        end = _HEAD_END.search(answer, line.end() - 1)
        if end is None:
            return None
        answer = answer[end.end() :]
    return None


def accepts(answer: bytes) -> bool:
    """Whether a client may take the bytes for a success, whatever follows its status line."""
    status = status_said(answer)
    return status is not None and 200 <= status <= 299
