"""The address of the API: whether it is free, and whether the API there is ready."""

from __future__ import annotations

import asyncio
import errno
import socket

from service.domain.errors import StartError
from service.domain.hosts import in_header
from service.settings import PREFIX

_READY_REQUEST_SECONDS = 2.0


def check_port(host: str, port: int) -> None:
    """Raise StartError, in one line, if a server cannot listen on `host` and `port`."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise StartError(f"{PREFIX}HOST {host!r} does not resolve: {error.strerror}") from error
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                # Like the API's own socket: lingering connections do not block it.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:  # a listener on IPv4 alone does not block it either
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise StartError(
                    f"port {port} on {host} is in use; set {PREFIX}PORT to another, or to 0 "
                    "for any free one"
                ) from error
            raise StartError(
                f"nothing can listen on {host} port {port} ({error.strerror}); "
                f"set {PREFIX}HOST and {PREFIX}PORT to a usable address"
            ) from error


async def readiness(host: str, port: int) -> bytes | None:
    """The status of /readyz, None without a response."""
    request = f"GET /readyz HTTP/1.1\r\nHost: {in_header(host)}\r\nConnection: close\r\n\r\n"
    try:
        async with asyncio.timeout(_READY_REQUEST_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(request.encode())
                return b"".join((await reader.readline()).split()[1:2]) or None
            finally:
                writer.close()
    except OSError:  # TimeoutError is one
        return None
