"""The limits above which changes are held, and the stored form of a waiting change."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, Literal

import msgspec

from service.domain.courses.change import Judgement, Verdict, gone
from service.domain.courses.fingerprint import NO_RAW, Fingerprint, path_digest, with_path_digests
from service.domain.courses.tracked_paths import CURRENT, PATH_DIGEST_BYTES, TRACKED_PATHS

_SENT: Final = bytes(PATH_DIGEST_BYTES)
"""Represents a path whose change was withheld although a record with it was sent."""
# The stored form of an update: this, the fingerprint's version, and as many bytes for each path.
UPDATE: Final = b"U"
PATHS_START: Final = 2
PATH_BYTES: Final = 1 + PATH_DIGEST_BYTES
_PRECISION: Final = 6  # decimals: shares are compared as people would compute them


class Guards(msgspec.Struct, frozen=True, kw_only=True):
    """The limits above which changes are held. Shares are of the live courses.

    Deletions are held when there are more than `deleted_count` and more than `deleted_share`, or
    more than `deleted_share_max` however few. Changes of one tracked path are held when at least
    `changed_count` courses changed in it and these are more than `changed_share`. A share of 1
    switches its limit off, whatever is counted. Decision 18 gives the reasons for the defaults.
    """

    deleted_count: int = 10
    deleted_share: float = 0.15
    deleted_share_max: float = 0.5
    changed_count: int = 20
    changed_share: float = 0.5


class Exceeded(msgspec.Struct, frozen=True, kw_only=True):
    """An exceeded limit: `count` of `live` courses are deleted, or changed in `path`, and the limit
    allows the share `allowed`."""

    limit: Literal["deleted_share", "deleted_share_max", "changed_share"]
    allowed: float
    count: int
    live: int
    path: str | None = None


class Withheld(msgspec.Struct, frozen=True, kw_only=True):
    """A change that is not committed, while its course's fingerprint stays unchanged. `raw` is the
    digest of a tombstone's bytes; `paths` are the new digests of an update's paths."""

    kind: Literal["tombstone", "absence", "update"]
    raw: bytes = NO_RAW
    paths: Mapping[str, bytes] = {}

    def pack(self) -> bytes:
        """The stored form: `T` and the raw digest, `A`, or `U`, the fingerprint's version and
        6 bytes a path: its number and its digest. Scripts read the kind and the numbers."""
        if self.kind == "tombstone":
            return b"T" + self.raw
        if self.kind == "absence":
            return b"A"
        numbered = [
            bytes((TRACKED_PATHS.index(path),)) + digest for path, digest in self.paths.items()
        ]
        return UPDATE + CURRENT.tag + b"".join(numbered)


def unpack_withheld(packed: bytes) -> Withheld:
    """Reads the stored form."""
    kind = packed[:1]
    if kind == b"T":
        return Withheld(kind="tombstone", raw=packed[1:])
    if kind == b"A":
        return Withheld(kind="absence")
    return Withheld(
        kind="update",
        paths={
            TRACKED_PATHS[packed[at]]: packed[at + 1 : at + PATH_BYTES]
            for at in range(PATHS_START, len(packed), PATH_BYTES)
        },
    )


def too_many_deleted(guards: Guards, deleted: int, live: int) -> bool:
    """Whether this number of deletions among `live` courses, those deleted included, exceeds a
    limit."""
    return bool(exceeded_limits(guards, deleted, {}, live))


def distrusted_paths(guards: Guards, changed: Mapping[str, int], live: int) -> frozenset[str]:
    """The paths whose number of changes among `live` courses exceeds the limit."""
    return frozenset(
        path
        for path, count in changed.items()
        if count >= max(1, guards.changed_count) and _exceeds(guards.changed_share, count, live)
    )


def exceeded_limits(
    guards: Guards, deleted: int, changed: Mapping[str, int], live: int
) -> list[Exceeded]:
    """Every limit that is exceeded by `deleted` deletions among `live` courses, those deleted
    included, and by the numbers of changes by path in `changed`."""
    found: list[Exceeded] = []
    if deleted > guards.deleted_count and _exceeds(guards.deleted_share, deleted, live):
        found.append(
            Exceeded(limit="deleted_share", allowed=guards.deleted_share, count=deleted, live=live)
        )
    if _exceeds(guards.deleted_share_max, deleted, live):
        found.append(
            Exceeded(
                limit="deleted_share_max",
                allowed=guards.deleted_share_max,
                count=deleted,
                live=live,
            )
        )
    found += (
        Exceeded(
            limit="changed_share",
            allowed=guards.changed_share,
            count=changed[path],
            live=live,
            path=path,
        )
        for path in sorted(distrusted_paths(guards, changed, live))
    )
    return found


def suspect_paths(
    guards: Guards,
    changed: Mapping[str, int],
    held: Mapping[str, int],
    *,
    seen: int,
    live: int,
) -> frozenset[str]:
    """The paths whose changes wait for the end of a running poll, because they may exceed a limit
    then. `changed` counts the changed courses by path among the poll's `seen` records, `held` the
    ones already held.
    """
    if guards.changed_share >= 1 or live < guards.changed_count:
        return frozenset()
    if seen < guards.changed_count:
        return frozenset(TRACKED_PATHS)
    together = {
        path: changed.get(path, 0) + held.get(path, 0) for path in changed.keys() | held.keys()
    }
    certain = distrusted_paths(guards, together, live)
    share = _share(guards.changed_share, seen)
    return certain | {path for path, count in changed.items() if count > share}


def divide(
    judgement: Judgement, waiting: Collection[str]
) -> tuple[Judgement | None, Withheld | None]:
    """Splits an update into a part to commit and a part in the `waiting` paths; either may be None.

    The event of the first part carries the whole record, including the waiting changes. The digests
    of the waiting paths are therefore removed, because otherwise no event would report their return
    to the previous values.
    """
    fingerprint, known = judgement.fingerprint, judgement.known
    kept = tuple(path for path in judgement.changed if path not in waiting)
    if fingerprint is None or known is None or len(kept) == len(judgement.changed):
        return judgement, None
    withheld = Withheld(
        kind="update",
        paths={
            path: path_digest(fingerprint.paths, path)
            for path in judgement.changed
            if path in waiting
        },
    )
    # Digests of different versions cannot be mixed: then the whole change waits.
    if not kept or known.version != CURRENT.tag:
        return None, withheld
    mixed = with_path_digests(fingerprint, dict.fromkeys(withheld.paths, _SENT))
    return msgspec.structs.replace(judgement, changed=kept, fingerprint=mixed), withheld


def sticky_paths(judgement: Judgement, held: Mapping[str, bytes]) -> frozenset[str]:
    """The paths of an update that stay held. Once a record with a held change was sent, another
    change of its path is no longer held."""
    fingerprint, known = judgement.fingerprint, judgement.known
    if known is None:
        return frozenset()
    if fingerprint is None or known.version != CURRENT.tag:
        return frozenset(judgement.changed) & held.keys()
    return frozenset(
        path
        for path in judgement.changed
        if path in held
        and (
            path_digest(known.paths, path) != _SENT
            or path_digest(fingerprint.paths, path) == held[path]
        )
    )


def accepted(known: Fingerprint, withheld: Withheld) -> Fingerprint:
    """The fingerprint of a course whose withheld change is accepted without an event."""
    if withheld.kind != "update":
        return gone(known, withheld.raw)
    # Digests of different versions cannot be mixed: then the next full poll finds the change again.
    return with_path_digests(known, withheld.paths if known.version == CURRENT.tag else {})


def stated_deletion(course_id: str, known: Fingerprint, tombstone: Withheld) -> Judgement:
    """The verdict on a live course whose withheld tombstone is accepted."""
    return Judgement(
        course_id=course_id,
        verdict=Verdict.DELETED,
        known=known,
        evidence="tombstone",
        fingerprint=accepted(known, tombstone),
    )


def _exceeds(share: float, count: int, live: int) -> bool:
    return share < 1 and count > _share(share, live)


def _share(share: float, count: int) -> float:
    return round(share * count, _PRECISION)
