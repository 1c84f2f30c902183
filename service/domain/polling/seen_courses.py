"""The courses that a full poll has read, kept as digests of their ids."""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable

from xxhash import xxh3_64_digest

_PART_BITS = 56  # digests with the same first byte are one part


def seen_digests(course_ids: Iterable[bytes]) -> bytes:
    """The stored form of read ids, 8 bytes each. Two digests that collide hide an absence, once in
    10^14 for a catalogue of 100,000."""
    return b"".join([xxh3_64_digest(course_id) for course_id in course_ids])


class SeenCourses:
    """The digests of a full poll, 8 bytes each, to look up ids.

    They are sorted in 256 parts, so that a thread which sorts the digests of millions of courses
    never blocks the event loop for as long as one sort of all of them takes.
    """

    def __init__(self, stored: bytes) -> None:
        self._parts = [array("Q") for _ in range(256)]
        for digest in memoryview(stored).cast("Q"):
            self._parts[digest >> _PART_BITS].append(digest)
        self.distinct = 0
        for at, part in enumerate(self._parts):
            self._parts[at] = array("Q", sorted(part))
            self.distinct += len(set(part))

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __contains__(self, course_id: str) -> bool:
        digest = int.from_bytes(xxh3_64_digest(course_id.encode()), sys.byteorder)
        part = self._parts[digest >> _PART_BITS]
        slot = bisect_left(part, digest)
        return slot < len(part) and part[slot] == digest
