"""The file of a backup: compressed parts after a line that describes it, with a checksum."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import AsyncIterable, Iterator
from pathlib import Path
from typing import IO, Final

import msgspec

from service.domain.errors import CoursewireError
from service.storage.backup.contents import Part

MAGIC: Final = b"coursewire backup\n"
FORMAT: Final = 1
_DIGEST_BYTES: Final = hashlib.sha256().digest_size
_LENGTH_BYTES: Final = 4
_BLOCK_BYTES: Final = 1 << 18
_LEVEL: Final = 1  # of zlib; higher levels save a tenth and take several times as long

_encode = msgspec.msgpack.encode
_decode_part = msgspec.msgpack.Decoder(Part).decode


class BackupError(CoursewireError):
    """The backup cannot be used."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The description of a backup. `encryption_keys` are the names of the keys that its secrets
    need."""

    format: int = FORMAT
    made_at: str
    version: str
    encryption_keys: tuple[str, ...]


async def write_archive(path: Path, manifest: Manifest, parts: AsyncIterable[Part]) -> int:
    """Write a backup, readable by its owner alone; return its number of keys. Raises OSError."""
    packer, digest = zlib.compressobj(_LEVEL), hashlib.sha256(MAGIC)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(MAGIC)

        def put(packed: bytes) -> None:
            digest.update(packed)
            file.write(packed)

        put(packer.compress(_frame(_encode(manifest))))
        keys, last = 0, b""
        async for part in parts:
            keys, last = keys + (part.key != last), part.key
            put(packer.compress(_frame(_encode(part))))
        put(packer.flush())
        file.write(digest.digest())
        file.flush()
        os.fsync(file.fileno())
    return keys


class Archive:
    """A backup whose checksum matches. Raises BackupError or OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self._end = os.fstat(file.fileno()).st_size - _DIGEST_BYTES
            if file.read(len(MAGIC)) != MAGIC:
                raise BackupError(f"{path} is not a backup of Coursewire")
            digest = hashlib.sha256(MAGIC)
            for block in self._blocks(file):
                digest.update(block)
            if file.read() != digest.digest():
                raise BackupError(
                    f"{path} is damaged: its checksum does not match; fetch the file again, or use "
                    "another backup"
                )
        self.manifest = self._manifest()

    def parts(self) -> Iterator[Part]:
        """The parts of the backup."""
        frames = self._frames()
        next(frames)
        return map(_decode_part, frames)

    def _manifest(self) -> Manifest:
        try:
            manifest = msgspec.msgpack.decode(next(self._frames()), type=Manifest)
        except msgspec.DecodeError as error:
            raise BackupError(f"{self.path} cannot be read: {error}") from error
        if manifest.format != FORMAT:
            raise BackupError(
                f"{self.path} was written by Coursewire {manifest.version}; restore it with that "
                "release or a newer one"
            )
        return manifest

    def _frames(self) -> Iterator[bytes]:
        unpacker, left = zlib.decompressobj(), b""
        with self.path.open("rb") as file:
            file.seek(len(MAGIC))
            for block in self._blocks(file):
                left += unpacker.decompress(block)
                at = 0
                while len(left) - at >= _LENGTH_BYTES:
                    end = at + _LENGTH_BYTES + int.from_bytes(left[at : at + _LENGTH_BYTES], "big")
                    if end > len(left):
                        break
                    yield left[at + _LENGTH_BYTES : end]
                    at = end
                left = left[at:]

    def _blocks(self, file: IO[bytes]) -> Iterator[bytes]:
        """The compressed bytes between the first line and the checksum."""
        while (size := min(_BLOCK_BYTES, self._end - file.tell())) > 0:
            yield file.read(size)


def _frame(content: bytes) -> bytes:
    return len(content).to_bytes(_LENGTH_BYTES, "big") + content
