"""`coursewire rotate-keys`: seals all that is kept sealed with the first encryption key."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, TextIO

import msgspec
from redis.exceptions import RedisError

from service.bootstrap import Services, open_services
from service.domain.errors import CoursewireError, SealError, StorageUnavailableError
from service.local.data_directory import completed_by_up
from service.settings import PREFIX, Settings
from service.storage.security.audit import Deed
from service.storage.security.encrypted_values import KINDS, REPLIES, Sealed
from service.storage.security.encryption import Sealer
from service.storage.security.key_holders import Process

SHOWN: Final = 20  # of the places that no key opens
_TOLD_EVERY: Final = 1_000  # values between two lines of progress

Progress = Callable[[str], None]


class KeyMissingError(CoursewireError):
    """Processes are at work that could not open what is sealed with the first key."""


class Rotated(msgspec.Struct, frozen=True, kw_only=True):
    """What a rotation came to. `looked_at` and `resealed` count by kind; `spoiled` are the places
    that no key opens, `others_sealing` the processes that go on sealing with another key."""

    first_key: str
    other_keys: tuple[str, ...]
    looked_at: dict[str, int]
    resealed: dict[str, int]
    spoiled: dict[str, list[str]]
    others_sealing: list[str]

    @property
    def complete(self) -> bool:
        """Whether nothing needs any other key, and nothing is going to."""
        return not self.spoiled and not self.others_sealing


async def rotate(services: Services, tell: Progress) -> Rotated:
    """Seals everything with the first key. It may be broken off at any place and begun again.

    Raises KeyMissingError, before anything is touched, where a process lacks that key.
    """
    sealer = services.sealer
    before = await services.processes.alive()
    _check(before, sealer)
    looked_at, resealed = Counter(dict.fromkeys(KINDS, 0)), Counter(dict.fromkeys(KINDS, 0))
    spoiled: dict[str, list[str]] = {}
    for kind in KINDS:
        async for page in services.sealed.pages(kind):
            for sealed in page:
                looked_at[kind] += 1
                if not services.sealed.opens(sealed):
                    _note(spoiled, kind, sealed)
                elif sealed.key_name != sealer.first:
                    try:
                        resealed[kind] += await services.sealed.reseal(sealed)
                    except SealError:
                        _note(spoiled, kind, sealed)
                if looked_at[kind] % _TOLD_EVERY == 0:
                    tell(_line(kind, looked_at, resealed))
        tell(_line(kind, looked_at, resealed))
    after = await services.processes.alive()
    rotated = Rotated(
        first_key=sealer.first,
        other_keys=sealer.key_names[1:],
        looked_at=dict(looked_at),
        resealed=dict(resealed),
        spoiled=spoiled,
        others_sealing=sorted(
            {one.name for one in [*before, *after] if one.key_names[0] != sealer.first}
        ),
    )
    if resealed.total():
        await services.audit.note(Deed(action="encryption_keys.rotated", actor="rotate-keys"))
    return rotated


def _check(processes: Sequence[Process], sealer: Sealer) -> None:
    lacking = sorted(one.name for one in processes if sealer.first not in one.key_names)
    if lacking:
        raise KeyMissingError(
            f"{_some(lacking)} could not open what is sealed with key {sealer.first}, the first of "
            f"{PREFIX}ENCRYPTION_KEYS here; put that key behind the old one for every part, "
            "restart them, and try again. A part that was killed is forgotten after 45 s"
        )


def _note(spoiled: dict[str, list[str]], kind: str, sealed: Sealed) -> None:
    spoiled.setdefault(kind, []).append(sealed.place.id)


def _line(kind: str, looked_at: Counter[str], resealed: Counter[str]) -> str:
    return f"{kind}: {looked_at[kind]} looked at, {resealed[kind]} sealed anew"


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def verdict(rotated: Rotated) -> list[str]:
    """What follows from it, in lines for people."""
    said = []
    for kind, ids in rotated.spoiled.items():
        advice = (
            "they are gone after a day"
            if kind == REPLIES
            else "give back the key that sealed them, at the end, and run this again; or store "
            "them again"
        )
        said.append(f"no key opens these {kind}: {_some(ids)}; {advice}")
    others = ", ".join(rotated.other_keys)
    if rotated.others_sealing:
        said.append(
            f"{_some(rotated.others_sealing)} still seal with another key: restart them with "
            f"{rotated.first_key} first, and run this again; until then no key may be removed"
        )
    elif not others:
        said.append(f"{rotated.first_key} is the only key, and everything else is sealed with it")
    else:
        said.append(
            f"nothing here needs any key but {rotated.first_key}: {others} may be removed from "
            f"{PREFIX}ENCRYPTION_KEYS of every part. Backups from before still need "
            f"{'it' if len(rotated.other_keys) == 1 else 'them'}"
        )
    return said


def as_document(rotated: Rotated) -> dict[str, Any]:
    """A rotation as JSON, ids bounded."""
    document: dict[str, Any] = msgspec.to_builtins(rotated)
    document["spoiled"] = {
        kind: {"count": len(ids), "ids": ids[:SHOWN]} for kind, ids in rotated.spoiled.items()
    }
    removable = not rotated.others_sealing
    return document | {"other_keys_may_be_removed": removable, "complete": rotated.complete}


def run(settings: Settings, out: TextIO, *, as_json: bool) -> int:
    """Rotates, tells how it goes on stderr and what came of it on `out`; the exit code is 0 where
    nothing is left to be done, 1 otherwise.

    Raises SettingsError, KeyMissingError or StorageUnavailableError.
    """
    settings = completed_by_up(settings)
    settings.require("REDIS_URL", "ENCRYPTION_KEYS")

    async def perform() -> Rotated:
        async with open_services(settings) as services:
            return await rotate(services, _tell)

    try:
        rotated = asyncio.run(perform())
    except (RedisError, OSError) as error:
        raise StorageUnavailableError(
            f"Redis cannot be used ({error}); what was sealed anew stays so: run this again"
        ) from error
    if as_json:
        out.write(json.dumps(as_document(rotated), indent=2) + "\n")
    else:
        out.writelines(f"{line}\n" for line in verdict(rotated))
    return 0 if rotated.complete else 1


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
