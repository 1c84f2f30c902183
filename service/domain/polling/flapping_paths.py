"""Finds paths in which the same courses change again and again, such as a signed URL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
from xxhash import xxh3_64_intdigest

SAMPLE: Final = 16  # courses of one path in a sample, those with the smallest digests
_DIGEST_BITS: Final = 40
# The minimum number of courses that change in a path. In a small catalogue, half of the live
# courses is enough if that is at least the second number.
ENOUGH: Final = 20
ENOUGH_OF_FEW: Final = 5
SAME_SHARE: Final = 0.5  # share of the courses above which two polls changed the same ones
TIMES: Final = 3  # changes of the same courses after which the path is reported
QUIET_FULL_POLLS: Final = 3  # full polls without another change after which a path is removed


class Flapping(msgspec.Struct, frozen=True, kw_only=True):
    """A path that changed in many courses.

    `times` counts the consecutive polls among those that changed it, since epoch ms `since`, in
    which mostly the same courses changed; `courses` is the number in the last of them, `sample`
    their smallest digests, and `quiet` counts the full polls since.
    """

    path: str
    times: int
    since: int
    courses: int
    sample: tuple[int, ...]
    quiet: int = 0

    @property
    def reported(self) -> bool:
        """Whether the path is reported."""
        return self.times >= TIMES


Samples = Mapping[str, tuple[int, ...]]


def sampled(
    samples: Samples, changes: Iterable[tuple[str, Iterable[str]]]
) -> dict[str, tuple[int, ...]]:
    """The samples of a poll's changed courses by path, after these `changes`: the ids of courses
    and their changed paths. A sample holds the smallest digests, so two samples compare like their
    sets.
    """
    found: dict[str, set[int]] = {}
    for course_id, paths in changes:
        digest = xxh3_64_intdigest(course_id.encode()) >> (64 - _DIGEST_BITS)
        for path in paths:
            found.setdefault(path, set()).add(digest)
    merged = {
        path: _smallest(digests.union(samples.get(path, ()))) for path, digests in found.items()
    }
    return {**samples, **merged}


def observe(
    known: Sequence[Flapping],
    changed: Mapping[str, int],
    samples: Samples,
    *,
    live: int,
    full: bool,
    now_ms: int,
) -> tuple[Flapping, ...]:
    """The stored paths after a complete poll with these numbers of changed courses by path, of
    `live` ones. `full` means that it read all courses."""
    least = min(ENOUGH, max(ENOUGH_OF_FEW, (live + 1) // 2))
    before = {one.path: one for one in known}
    after: list[Flapping] = []
    for path in sorted({*before, *changed}):
        courses, sample, last = changed.get(path, 0), samples.get(path, ()), before.get(path)
        if courses >= least and sample:
            again = last is not None and same_share(last.sample, sample) > SAME_SHARE
            after.append(
                Flapping(
                    path=path,
                    times=last.times + 1 if last is not None and again else 1,
                    since=last.since if last is not None and again else now_ms,
                    courses=courses,
                    sample=sample,
                )
            )
        elif last is not None and last.quiet + full < QUIET_FULL_POLLS:
            after.append(msgspec.structs.replace(last, quiet=last.quiet + full))
    return tuple(after)


def same_share(one: Sequence[int], other: Sequence[int]) -> float:
    """The estimated share of two sets' courses that are in both, from their samples."""
    union = _smallest({*one, *other})
    both = {*one} & {*other}
    return sum(digest in both for digest in union) / len(union) if union else 0.0


def _smallest(digests: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(digests)[:SAMPLE])
