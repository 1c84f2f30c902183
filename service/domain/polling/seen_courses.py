"""The courses that a full poll has read, kept as digests of their ids."""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from itertools import groupby

from xxhash import xxh3_64_digest


def seen_digests(course_ids: Iterable[bytes]) -> bytes:
    """The stored form of read ids, 8 bytes each. Two digests that collide hide an absence, once in
    10^14 for a catalogue of 100,000."""
    return b"".join([xxh3_64_digest(course_id) for course_id in course_ids])


def sorted_digests(stored: bytes) -> array[int]:
    """The digests of a full poll, sorted, 8 bytes each."""
    digests = array("Q", stored)
    return array("Q", sorted(digests))


def distinct(digests: array[int]) -> int:
    """The number of different digests among sorted ones."""
    return sum(1 for _ in groupby(digests))


def was_seen(digests: array[int], course_id: str) -> bool:
    """Whether `digests`, sorted, hold that of `course_id`."""
    digest = int.from_bytes(xxh3_64_digest(course_id.encode()), sys.byteorder)
    slot = bisect_left(digests, digest)
    return slot < len(digests) and digests[slot] == digest
