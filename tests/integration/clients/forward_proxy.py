"""A forward proxy on loopback: honest by default, with credentials and faults where a test asks."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress

Fault = Callable[[asyncio.StreamReader, asyncio.StreamWriter, bytes], Awaitable[None]]


class ForwardProxy:
    """Takes CONNECT, and http requests in absolute form, one after the other on a connection.

    `names` are those that it resolves itself; `login` is `user:password`. `refuses` answers every
    CONNECT with a status; `fault` takes over after the head of a request.
    """

    def __init__(self, *, login: str = "", names: dict[str, str] | None = None) -> None:
        self.login = login
        self.names = names or {}
        self.refuses = 0
        self.fault: Fault | None = None
        self.connections = 0
        self.requests: list[tuple[str, str, dict[str, str]]] = []  # method, target, headers
        self.url = ""
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self._server = await asyncio.start_server(self._accept, host, 0, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]
        scheme, place = "https" if tls else "http", f"[{host}]" if ":" in host else host
        login = f"{self.login}@" if self.login else ""
        self.url = f"{scheme}://{login}{place}:{self.port}"

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def targets(self) -> list[str]:
        return [target for _, target, _ in self.requests]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._serve(reader, writer)
        writer.transport.abort()
        self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            line, *fields = head.decode().split("\r\n")
            method, target, _ = line.split(" ")
            headers = {
                name.lower(): value.strip()
                for name, _, value in (one.partition(":") for one in fields if one)
            }
            self.requests.append((method, target, headers))
            if self.fault is not None:
                await self.fault(reader, writer, head)
                return
            expected = "Basic " + base64.b64encode(self.login.encode()).decode()
            if self.login and headers.get("proxy-authorization") != expected:
                await _answer(writer, 407)
                return
            if method == "CONNECT":
                if self.refuses:
                    await _answer(writer, self.refuses)
                    return
                await self.tunnel(target, reader, writer)
                return
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            await self._forward(target, head, body, writer)

    async def open(self, target: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        host, _, port = target.rpartition(":")
        host = host.strip("[]")
        try:
            return await asyncio.open_connection(self.names.get(host, host), int(port))
        except (OSError, socket.gaierror):
            return None

    async def tunnel(
        self, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        opened = await self.open(target)
        if opened is None:
            await _answer(writer, 502)
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n")
        await asyncio.gather(_pipe(reader, opened[1]), _pipe(opened[0], writer))

    async def _forward(
        self, target: str, head: bytes, body: bytes, writer: asyncio.StreamWriter
    ) -> None:
        authority, _, path = target.removeprefix("http://").partition("/")
        place = authority if ":" in authority.rpartition("]")[2] else f"{authority}:80"
        opened = await self.open(place)
        if opened is None:
            await _answer(writer, 502)
            return
        there, back = opened[1], opened[0]
        lines = [
            one
            for one in head.split(b"\r\n")[1:-2]
            if not one.lower().startswith((b"proxy-", b"connection:"))
        ]
        start = head.split(b" ", 1)[0] + f" /{path} HTTP/1.1".encode()
        there.write(b"\r\n".join([start, *lines, b"Connection: close", b"", b""]) + body)
        answer = await back.readuntil(b"\r\n\r\n")
        length = int(answer.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        writer.write(answer + await back.readexactly(length))
        await writer.drain()
        there.close()


async def _answer(writer: asyncio.StreamWriter, status: int) -> None:
    challenge = 'Proxy-Authenticate: Basic realm="test"\r\n' if status == 407 else ""
    writer.write(f"HTTP/1.1 {status} Said\r\n{challenge}Content-Length: 2\r\n\r\nno".encode())
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
