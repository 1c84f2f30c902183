"""Fingerprints: the digests kept of a course, and which tracked paths two of them differ in.

A fingerprint is one byte string, so that the store can keep it as it is and the scripts can
place `sequence` and the event's id into it without knowing the rest:

    version 1 | flag 1 | sequence 13 | event 26 | raw digest 16 | path digests 5 each | names

The raw digest is that of the record's bytes as last received. It alone is compared on the
fast path: equal bytes lead to equal conclusions. The path digests are taken over a canonical
form and decide whether anything tracked changed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final

import msgspec
from xxhash import xxh3_64_digest, xxh3_128_digest

from service.domain.course import Course, IntegrationField

VERSION: Final = b"1"
LIVE: Final = b"L"
DELETED: Final = b"D"
NO_SEQUENCE: Final = b"0" * 13
NO_EVENT: Final = b"-" * 26
NO_RAW: Final = bytes(16)
# 40 bits: a change of one path goes unseen once in 10^12.
PATH_DIGEST_BYTES: Final = 5

_SEQUENCE = slice(2, 15)
_EVENT = slice(15, 41)
RAW: Final = slice(41, 57)
_PATHS_START: Final = 57

_encode = msgspec.json.Encoder(order="sorted").encode


def _fields(fields: list[IntegrationField]) -> list[tuple[str, str | None, Any, str | None]]:
    return sorted(
        ((field.key, field.type, field.value, field.label) for field in fields), key=_encode
    )


def _by_revision(value: Callable[[Any], Any]) -> Callable[[Course], Any]:
    """What `value` gives for each revision, by revision id; nothing for null and empty."""

    def collect(course: Course) -> Any:
        found = [
            (revision.id, extracted)
            for revision in course.revisions
            if (extracted := value(revision)) not in (None, [])
        ]
        return sorted(found, key=_encode) if len(found) > 1 else found

    return collect


# Each tracked path and what it covers. The order is part of the fingerprint's version.
_TRACKED: Final[dict[str, Callable[[Course], Any]]] = {
    "remote_id": lambda course: course.remote_id,
    "origin_id": lambda course: course.origin_id,
    "remote_created_at": lambda course: course.remote_created_at,
    "remote_data": lambda course: course.remote_data,
    "custom_fields": lambda course: course.custom_fields,
    "integration_fields": lambda course: _fields(course.integration_fields),
    "provider": lambda course: (course.provider_id, course.provider),
    "revisions": lambda course: sorted(revision.id for revision in course.revisions),
    "revisions.remote_id": _by_revision(lambda revision: revision.remote_id),
    "revisions.remote_created_at": _by_revision(lambda revision: revision.remote_created_at),
    "revisions.remote_deleted_at": _by_revision(lambda revision: revision.remote_deleted_at),
    "revisions.remote_data": _by_revision(lambda revision: revision.remote_data),
    "revisions.title": _by_revision(lambda revision: revision.title),
    "revisions.description": _by_revision(lambda revision: revision.description),
    "revisions.remote_url": _by_revision(lambda revision: revision.remote_url),
    "revisions.status": _by_revision(lambda revision: revision.status),
    "revisions.custom_fields": _by_revision(lambda revision: revision.custom_fields),
    "revisions.integration_fields": _by_revision(
        lambda revision: _fields(revision.integration_fields)
    ),
    "revisions.skill_assignments": _by_revision(
        lambda revision: sorted((link.skill for link in revision.skill_assignments), key=_encode)
    ),
}

TRACKED_PATHS: Final = tuple(_TRACKED)
REMOTE_DATA_PATHS: Final = frozenset({"remote_data", "revisions.remote_data"})
_EXTRACTORS: Final = tuple(_TRACKED.values())
_NAMES_START: Final = _PATHS_START + PATH_DIGEST_BYTES * len(TRACKED_PATHS)
_BETWEEN_NAMES: Final = b"\xff"  # a byte that UTF-8 never uses, so no name contains it


def raw_digest(record: bytes | msgspec.Raw) -> bytes:
    """The 128-bit digest of a record's bytes as received."""
    return xxh3_128_digest(record)


def path_digests(course: Course) -> bytes:
    """The digests of all tracked paths, in their published order."""
    return b"".join(
        [xxh3_64_digest(_encode(extract(course)))[:PATH_DIGEST_BYTES] for extract in _EXTRACTORS]
    )


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """An unpacked fingerprint. `sequence` is 0 and `event` None where no event was sent yet."""

    deleted: bool
    raw: bytes
    paths: bytes
    remote_id: str | None
    origin_id: str | None
    sequence: int = 0
    event: str | None = None

    def head(self) -> bytes:
        """What precedes `sequence` in the packed form."""
        return VERSION + (DELETED if self.deleted else LIVE)

    def tail(self) -> bytes:
        """What follows the event's id in the packed form."""
        return b"".join(
            (self.raw, self.paths, _name(self.remote_id), _BETWEEN_NAMES, _name(self.origin_id))
        )

    def pack(self) -> bytes:
        """The stored form."""
        sequence = str(self.sequence).encode().rjust(13, b"0")
        event = self.event.encode() if self.event else NO_EVENT
        return b"".join((self.head(), sequence, event, self.tail()))


def unpack(packed: bytes) -> Fingerprint:
    """Reads the stored form. Raises ValueError if its version is not known."""
    if packed[:1] != VERSION:
        raise ValueError(f"unknown fingerprint version {packed[:1]!r}")
    remote_id, _, origin_id = packed[_NAMES_START:].partition(_BETWEEN_NAMES)
    event = packed[_EVENT]
    return Fingerprint(
        deleted=packed[1:2] == DELETED,
        sequence=int(packed[_SEQUENCE]),
        event=None if event == NO_EVENT else event.decode(),
        raw=packed[RAW],
        paths=packed[_PATHS_START:_NAMES_START],
        remote_id=_read_name(remote_id),
        origin_id=_read_name(origin_id),
    )


def changed_paths(before: bytes, after: bytes, ignored: Collection[str] = ()) -> tuple[str, ...]:
    """The tracked paths whose digests differ, in published order, without the ignored ones."""
    size = PATH_DIGEST_BYTES
    return tuple(
        path
        for index, path in enumerate(TRACKED_PATHS)
        if before[index * size : (index + 1) * size] != after[index * size : (index + 1) * size]
        and path not in ignored
    )


def _name(value: str | None) -> bytes:
    # A present name is marked, so that an empty one differs from none.
    return b"" if value is None else b"=" + value.encode()


def _read_name(stored: bytes) -> str | None:
    return stored[1:].decode() if stored else None
