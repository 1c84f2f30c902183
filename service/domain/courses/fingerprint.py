"""Fingerprints: the stored digests of a course, and the tracked paths in which two differ.

A fingerprint is one byte string, so that scripts can write `sequence` and the event's id into it
without knowing the rest:

    version 1 | flag 1 | sequence 13 | event 26 | raw digest 16 | path digests 5 each | names

The raw digest is that of the record's bytes as last received. The fast path compares only the raw
digest, because equal bytes lead to equal conclusions. The path digests are taken over a canonical
form and decide whether a tracked path changed.

The layout before the path digests is the same in every version of the tracked paths.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from struct import Struct
from typing import Final

import msgspec
from xxhash import xxh3_128_digest

from service.domain.courses.tracked_paths import (
    CURRENT,
    PATH_DIGEST_BYTES,
    TRACKED_PATHS,
    Version,
    version_of,
)

LIVE: Final = b"L"
DELETED: Final = b"D"
NO_EVENT: Final = b"-" * 26
NO_RAW: Final = bytes(16)

# Scripts read and write these positions.
FLAG: Final = slice(1, 2)
SEQUENCE: Final = slice(2, 15)
_EVENT = slice(15, 41)
RAW: Final = slice(41, 57)
_PATHS_START: Final = RAW.stop


_DIGEST: Final = Struct(f"{PATH_DIGEST_BYTES}s")
_SEED: Final = CURRENT.seed
_BETWEEN_NAMES: Final = b"\xff"  # a byte that never occurs in UTF-8, so names do not contain it


def raw_digest(record: bytes | msgspec.Raw) -> bytes:
    """The 128-bit digest of a record's bytes as received, under the current version."""
    return xxh3_128_digest(record, _SEED)


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """An unpacked fingerprint. `sequence` is 0 and `event` None before the first event. `version`
    is the tag of the version of `paths`."""

    deleted: bool
    raw: bytes
    paths: bytes
    remote_id: str | None
    origin_id: str | None
    sequence: int = 0
    event: str | None = None
    version: bytes = CURRENT.tag

    def head(self) -> bytes:
        """The part before `sequence` in the packed form."""
        return self.version + (DELETED if self.deleted else LIVE)

    def tail(self) -> bytes:
        """The part after the event's id in the packed form."""
        return b"".join(
            (self.raw, self.paths, _name(self.remote_id), _BETWEEN_NAMES, _name(self.origin_id))
        )

    def pack(self) -> bytes:
        """The stored form."""
        sequence = str(self.sequence).encode().rjust(13, b"0")
        event = self.event.encode() if self.event else NO_EVENT
        return b"".join((self.head(), sequence, event, self.tail()))


def _names_start(version: Version) -> int:
    """The offset of the names in the packed form."""
    return _PATHS_START + PATH_DIGEST_BYTES * len(version.tracked)


def is_deleted(packed: bytes) -> bool:
    """Whether a stored fingerprint is of a deleted course."""
    return packed[FLAG] == DELETED


def names_in(packed: bytes) -> tuple[str | None, str | None]:
    """The remote id and the origin id in a stored fingerprint. Raises FingerprintVersionError."""
    start = _names_start(version_of(packed[:1]))
    remote_id, _, origin_id = packed[start:].partition(_BETWEEN_NAMES)
    return _read_name(remote_id), _read_name(origin_id)


def unpack(packed: bytes) -> Fingerprint:
    """Reads the stored form of any version. Raises FingerprintVersionError."""
    version = version_of(packed[:1])
    remote_id, origin_id = names_in(packed)
    event = packed[_EVENT]
    return Fingerprint(
        deleted=is_deleted(packed),
        sequence=int(packed[SEQUENCE]),
        event=None if event == NO_EVENT else event.decode(),
        raw=packed[RAW],
        paths=packed[_PATHS_START : _names_start(version)],
        remote_id=remote_id,
        origin_id=origin_id,
        version=version.tag,
    )


def changed_paths(
    before: bytes, after: bytes, ignored: Collection[str] = (), version: Version = CURRENT
) -> tuple[str, ...]:
    """The paths whose digests differ, in the order of the version of both, without the ignored
    ones."""
    return tuple(
        path
        for path, old, new in zip(
            version.tracked, _DIGEST.iter_unpack(before), _DIGEST.iter_unpack(after), strict=True
        )
        if old != new and path not in ignored
    )


def path_digest(paths: bytes, path: str) -> bytes:
    """The digest of one path among those that the current version took."""
    start = TRACKED_PATHS.index(path) * PATH_DIGEST_BYTES
    return paths[start : start + PATH_DIGEST_BYTES]


def with_path_digests(fingerprint: Fingerprint, digests: Mapping[str, bytes]) -> Fingerprint:
    """A fingerprint of the current version with other digests of some paths. Its raw digest matches
    no bytes, so the next received bytes are compared."""
    paths = bytearray(fingerprint.paths)
    for path, digest in digests.items():
        start = TRACKED_PATHS.index(path) * PATH_DIGEST_BYTES
        paths[start : start + PATH_DIGEST_BYTES] = digest
    return msgspec.structs.replace(fingerprint, paths=bytes(paths), raw=NO_RAW)


def _name(value: str | None) -> bytes:
    # A present name is marked, so that an empty one differs from a missing one.
    return b"" if value is None else b"=" + value.encode()


def _read_name(stored: bytes) -> str | None:
    return stored[1:].decode() if stored else None
