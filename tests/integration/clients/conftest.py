"""A peer on loopback that answers as a test says, byte by byte."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from service.clients.address_guard import AddressGuard
from service.clients.transport import OutboundClient, open_client


class Exchange:
    """One request that arrived, and the means to answer it."""

    def __init__(
        self,
        peer: Peer,
        head: bytes,
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.target = head.split(b" ", 2)[1].decode()
        self.headers = {
            name.strip().lower().decode(): value.strip().decode()
            for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
            if name
        }
        self.body = body
        self.local = str(writer.get_extra_info("sockname")[0])
        self.test_over = peer.test_over
        self._reader = reader
        self.writer = writer

    async def hung_up(self) -> None:
        """Wait until the client has ended the connection."""
        while await self._reader.read(65536):
            pass

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, status: int = 200, body: bytes = b"", **headers: str) -> None:
        """A complete answer; the connection stays open."""
        lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Exchange], Awaitable[None]]


class Peer:
    """A listening peer. `script` answers each request; None never reads at all."""

    def __init__(self, script: Script | None) -> None:
        self.script = script
        self.requests: list[Exchange] = []
        self.connections = 0
        self.disconnections = 0
        self.changed = asyncio.Condition()
        self.test_over = asyncio.Event()
        self.port = 0
        self._scheme = "http"
        self._handlers: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}/hook"

    async def listen(self, tls: ssl.SSLContext | None, host: str = "127.0.0.1") -> None:
        self._server = await asyncio.start_server(self._accept, host, 0, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]
        self._scheme = "https" if tls else "http"

    async def stop(self) -> None:
        self.test_over.set()
        assert self._server is not None
        self._server.close()
        for handler in self._handlers:
            handler.cancel()
        await asyncio.gather(*self._handlers)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(condition)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        async with self.changed:
            self.connections += 1
            self.changed.notify_all()
        with suppress(asyncio.CancelledError, OSError, asyncio.IncompleteReadError):
            await self._serve(reader, writer)
        self._handlers.discard(task)
        writer.close()
        with suppress(asyncio.CancelledError):
            async with self.changed:
                self.disconnections += 1
                self.changed.notify_all()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.script is None:
            await self.test_over.wait()
            return
        while not writer.is_closing():
            head = await reader.readuntil(b"\r\n\r\n")
            lower = head.lower()
            length = 0
            if b"content-length:" in lower:
                length = int(lower.split(b"content-length:")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            exchange = Exchange(self, head, body, reader, writer)
            async with self.changed:
                self.requests.append(exchange)
                self.changed.notify_all()
            await self.script(exchange)


Listen = Callable[..., Awaitable[Peer]]


@pytest.fixture
async def listen() -> AsyncIterator[Listen]:
    """Start peers; they end with the test."""
    peers: list[Peer] = []

    async def start(
        script: Script | None, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
    ) -> Peer:
        peer = Peer(script)
        await peer.listen(tls, host)
        peers.append(peer)
        return peer

    yield start
    for peer in peers:
        await peer.stop()


@pytest.fixture
async def client() -> AsyncIterator[OutboundClient]:
    """The shared client, allowed to reach loopback over IPv4."""
    async with open_client(AddressGuard(["127.0.0.0/8"])) as opened:
        yield opened


@pytest.fixture
def closed_port() -> int:
    """A loopback port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for 127.0.0.1 that nobody but itself vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "loopback.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context
