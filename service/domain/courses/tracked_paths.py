"""The tracked paths: the compared fields of a course, and the input of each digest.

A version consists of its paths and the input of each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, Final

import msgspec
from xxhash import xxh3_64_digest

from service.domain.courses.record import Course, IntegrationField, Revision
from service.domain.errors import FingerprintVersionError

# 40 bits: a change of one path is missed once in 10^12.
PATH_DIGEST_BYTES: Final = 5

_Extractor = Callable[[Course], Any]

_encode = msgspec.json.Encoder(order="sorted").encode


class Version(msgspec.Struct, frozen=True):
    """One way to take fingerprints: its one byte, and the input of each tracked path. The order of
    the paths is part of it."""

    tag: bytes
    tracked: Mapping[str, _Extractor]

    @property
    def seed(self) -> int:
        """The seed of the raw digests, which differs between versions: if a raw digest equals
        one of the current version, that version took it, so the fast path need not check the
        version."""
        return self.tag[0] ^ ord("1")  # version 1 has always used none


def _fields(
    fields: list[IntegrationField] | None,
) -> list[tuple[str, str | None, Any, str | None]]:
    return sorted(
        ((field.key, field.type, field.value, field.label) for field in fields or ()), key=_encode
    )


def _by_revision(value: Callable[[Revision], Any]) -> _Extractor:
    """`value` of each revision, by revision id; empty for null and empty values."""

    def collect(course: Course) -> Any:
        found = []
        for revision in course.revisions or ():
            extracted = value(revision)
            if extracted is not None and extracted != []:
                found.append((revision.id, extracted))
        return sorted(found, key=_encode) if len(found) > 1 else found

    return collect


_TRACKED: Final[dict[str, _Extractor]] = {
    "remote_id": attrgetter("remote_id"),
    "origin_id": attrgetter("origin_id"),
    "remote_created_at": attrgetter("remote_created_at"),
    "remote_data": attrgetter("remote_data"),
    "custom_fields": attrgetter("custom_fields"),
    "integration_fields": lambda course: _fields(course.integration_fields),
    "provider": lambda course: (course.provider_id, course.provider),
    "revisions": lambda course: sorted(revision.id for revision in course.revisions or ()),
    "revisions.remote_id": _by_revision(attrgetter("remote_id")),
    "revisions.remote_created_at": _by_revision(attrgetter("remote_created_at")),
    "revisions.remote_deleted_at": _by_revision(attrgetter("remote_deleted_at")),
    "revisions.remote_data": _by_revision(attrgetter("remote_data")),
    "revisions.title": _by_revision(attrgetter("title")),
    "revisions.description": _by_revision(attrgetter("description")),
    "revisions.remote_url": _by_revision(attrgetter("remote_url")),
    "revisions.status": _by_revision(attrgetter("status")),
    "revisions.custom_fields": _by_revision(attrgetter("custom_fields")),
    "revisions.integration_fields": _by_revision(
        lambda revision: _fields(revision.integration_fields)
    ),
    "revisions.skill_assignments": _by_revision(
        lambda revision: sorted(
            (link.skill for link in revision.skill_assignments or ()), key=_encode
        )
    ),
}

CURRENT: Final = Version(b"1", _TRACKED)
# The versions in catalogues, by tag. Any change of a path's digest, of the paths or of their order
# needs a new tag for CURRENT. The previous version stays here for at least one release, in which
# every received course is rewritten.
OLDER: Final[dict[bytes, Version]] = {}

TRACKED_PATHS: Final = tuple(CURRENT.tracked)
REMOTE_DATA_PATHS: Final = frozenset({"remote_data", "revisions.remote_data"})


def version_of(tag: bytes) -> Version:
    """The version with a tag. Raises FingerprintVersionError."""
    if tag == CURRENT.tag:
        return CURRENT
    if (version := OLDER.get(tag)) is None:
        raise FingerprintVersionError(tag)
    return version


def path_digests(course: Course, version: Version = CURRENT) -> bytes:
    """The digests of all paths that a version tracks, in its order."""
    return b"".join(
        [
            xxh3_64_digest(_encode(extract(course)))[:PATH_DIGEST_BYTES]
            for extract in version.tracked.values()
        ]
    )
