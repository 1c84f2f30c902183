"""Fetches a snapshot of the server in its own format, over the replication protocol."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Final, Protocol

from redis.exceptions import ConnectionError, ResponseError  # noqa: A004 - redis's own name

from service.domain.errors import CoursewireError
from service.storage.redis.client import open_sync

_SILENCE_SECONDS: Final = 60.0  # the server sends a newline every second while it prepares
_BLOCK_BYTES: Final = 1 << 18
_MARK_BYTES: Final = 40  # of the random text that ends a snapshot of unknown length


class SnapshotRefusedError(CoursewireError):
    """The server sends no snapshot."""


class _Stream(Protocol):
    def recv(self, most: int, /) -> bytes: ...


def fetch_snapshot(url: str, path: Path) -> None:
    """Write a snapshot of the server to `path`: the data as of one moment.

    The server forks for it, as for a replica, and keeps serving. Raises SnapshotRefusedError or
    RedisError.
    """
    with open_sync(url) as redis:
        connection = redis.connection_pool.get_connection()
        try:
            for words in (("REPLCONF", "capa", "eof"), ("REPLCONF", "rdb-only", "1")):
                connection.send_command(*words)
                try:
                    connection.read_response()
                except ResponseError as error:
                    if words[1] == "capa":
                        raise _refused(str(error)) from error
                    # For servers before Redis 7; later changes are then not read.
            connection.send_command("SYNC")
            stream = connection._sock  # noqa: SLF001 - redis-py has no other way to read raw bytes
            stream.settimeout(_SILENCE_SECONDS)
            with path.open("wb") as file:
                _receive(stream, file)
        finally:
            connection.disconnect()


def _refused(reason: str) -> SnapshotRefusedError:
    return SnapshotRefusedError(
        f"Redis sends no snapshot ({reason}); a backup needs a user with the rights +sync "
        "+replconf in COURSEWIRE_REDIS_URL. Where the provider forbids that, use its own backups"
    )


def _receive(stream: _Stream, file: IO[bytes]) -> None:
    head = _head(stream)
    if head.startswith(b"-"):
        raise _refused(head[1:].decode(errors="replace"))
    mark = head[5:] if head.startswith(b"$EOF:") else b""
    left = -1 if mark else int(head[1:])
    kept = b""  # may be the mark, or its beginning
    while left:
        block = _received(stream, _BLOCK_BYTES if mark else min(left, _BLOCK_BYTES))
        if not mark:
            file.write(block)
            left -= len(block)
            continue
        kept += block
        file.write(kept[:-_MARK_BYTES])
        kept = kept[-_MARK_BYTES:]
        if kept == mark:
            break


def _head(stream: _Stream) -> bytes:
    """The line that announces the transfer of the snapshot."""
    line = b""
    while not line.endswith(b"\n") or not line.strip():
        line += _received(stream, 1)
    return line.strip()


def _received(stream: _Stream, most: int) -> bytes:
    try:
        block = stream.recv(most)
    except OSError as error:
        raise ConnectionError(f"the snapshot does not arrive ({error})") from error
    if not block:
        raise ConnectionError("the server ended the connection before the end of its snapshot")
    return block
