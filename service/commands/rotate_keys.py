"""`coursewire rotate-keys`: re-encrypts all stored secrets with the first encryption key."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, TextIO

import msgspec
from redis.exceptions import RedisError

from service.bootstrap import open_services
from service.domain.errors import CoursewireError, DecryptionError, StorageUnavailableError
from service.local.data_directory import completed_by_up
from service.settings import PREFIX, Settings
from service.storage.security.audit import Audit, AuditRecord
from service.storage.security.encrypted_values import (
    KINDS,
    REPLIES,
    EncryptedValue,
    EncryptedValues,
)
from service.storage.security.encryption import Encryptor
from service.storage.security.key_holders import Process, Processes

SHOWN: Final = 20  # of the locations that no key decrypts
_REPORTED_EVERY: Final = 1_000  # values between two lines of progress

Progress = Callable[[str], None]


class KeyMissingError(CoursewireError):
    """Running processes could not decrypt secrets encrypted with the first key."""


class Rotated(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a rotation. `looked_at` and `reencrypted` count by kind; `spoiled` are the
    locations that no key decrypts, `others_encrypting` the processes that still encrypt with
    another key."""

    first_key: str
    other_keys: tuple[str, ...]
    looked_at: dict[str, int]
    reencrypted: dict[str, int]
    spoiled: dict[str, list[str]]
    others_encrypting: list[str]

    @property
    def complete(self) -> bool:
        """Whether no secret needs another key, now or later."""
        return not self.spoiled and not self.others_encrypting


async def rotate(
    encrypted: EncryptedValues,
    encryptor: Encryptor,
    processes: Processes,
    audit: Audit,
    report: Progress,
) -> Rotated:
    """Encrypts all secrets with the first key.

    It can be interrupted at any location and started again. Raises KeyMissingError before any
    change if a process lacks that key.
    """
    before = await processes.alive()
    _check(before, encryptor)
    looked_at, reencrypted = Counter(dict.fromkeys(KINDS, 0)), Counter(dict.fromkeys(KINDS, 0))
    spoiled: dict[str, list[str]] = {}
    for kind in KINDS:
        async for page in encrypted.pages(kind):
            for value in page:
                looked_at[kind] += 1
                if not encrypted.can_decrypt(value):
                    _note(spoiled, kind, value)
                elif value.key_name != encryptor.first:
                    try:
                        reencrypted[kind] += await encrypted.reencrypt(value)
                    except DecryptionError:
                        _note(spoiled, kind, value)
                if looked_at[kind] % _REPORTED_EVERY == 0:
                    report(_line(kind, looked_at, reencrypted))
        report(_line(kind, looked_at, reencrypted))
    after = await processes.alive()
    rotated = Rotated(
        first_key=encryptor.first,
        other_keys=encryptor.key_names[1:],
        looked_at=dict(looked_at),
        reencrypted=dict(reencrypted),
        spoiled=spoiled,
        others_encrypting=sorted(
            {one.name for one in [*before, *after] if one.key_names[0] != encryptor.first}
        ),
    )
    if reencrypted.total():
        await audit.note(AuditRecord(action="encryption_keys.rotated", actor="rotate-keys"))
    return rotated


def _check(processes: Sequence[Process], encryptor: Encryptor) -> None:
    lacking = sorted(one.name for one in processes if encryptor.first not in one.key_names)
    if lacking:
        raise KeyMissingError(
            f"{_some(lacking)} could not decrypt secrets encrypted with key {encryptor.first}, the "
            f"first of {PREFIX}ENCRYPTION_KEYS here; put that key behind the old one for every "
            "part, restart them, and try again. The record of a killed part expires after 45 s"
        )


def _note(spoiled: dict[str, list[str]], kind: str, encrypted: EncryptedValue) -> None:
    spoiled.setdefault(kind, []).append(encrypted.location.id)


def _line(kind: str, looked_at: Counter[str], reencrypted: Counter[str]) -> str:
    return f"{kind}: {looked_at[kind]} looked at, {reencrypted[kind]} re-encrypted"


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def verdict(rotated: Rotated) -> list[str]:
    """The conclusion, in lines for people."""
    said = []
    for kind, ids in rotated.spoiled.items():
        advice = (
            "they expire after a day"
            if kind == REPLIES
            else "add the key that encrypted them at the end, and run this again; or store the "
            "secrets again"
        )
        said.append(f"no key decrypts these {kind}: {_some(ids)}; {advice}")
    others = ", ".join(rotated.other_keys)
    if rotated.others_encrypting:
        said.append(
            f"{_some(rotated.others_encrypting)} still encrypt with another key: restart them with "
            f"{rotated.first_key} first, and run this again; until then no key may be removed"
        )
    elif not others:
        said.append(
            f"{rotated.first_key} is the only key, and everything else is encrypted with it"
        )
    else:
        said.append(
            f"nothing here needs any key but {rotated.first_key}: {others} may be removed from "
            f"{PREFIX}ENCRYPTION_KEYS of every part. Backups from before still need "
            f"{'it' if len(rotated.other_keys) == 1 else 'them'}"
        )
    return said


def as_document(rotated: Rotated) -> dict[str, Any]:
    """A rotation as JSON, with a bounded number of ids."""
    document: dict[str, Any] = msgspec.to_builtins(rotated)
    document["spoiled"] = {
        kind: {"count": len(ids), "ids": ids[:SHOWN]} for kind, ids in rotated.spoiled.items()
    }
    removable = not rotated.others_encrypting
    return document | {"other_keys_may_be_removed": removable, "complete": rotated.complete}


def run(settings: Settings, out: TextIO, *, as_json: bool) -> int:
    """Rotates, reports progress on stderr and the result on `out`; the exit code is 0 if the
    rotation is complete, otherwise 1.

    Raises SettingsError, KeyMissingError or StorageUnavailableError.
    """
    settings = completed_by_up(settings)
    settings.require("REDIS_URL", "ENCRYPTION_KEYS")

    async def perform() -> Rotated:
        async with open_services(settings) as services:
            return await rotate(
                services.encrypted, services.encryptor, services.processes, services.audit, _report
            )

    try:
        rotated = asyncio.run(perform())
    except (RedisError, OSError) as error:
        raise StorageUnavailableError(
            f"Redis cannot be used ({error}); re-encrypted secrets are stored: run this again"
        ) from error
    if as_json:
        out.write(json.dumps(as_document(rotated), indent=2) + "\n")
    else:
        out.writelines(f"{line}\n" for line in verdict(rotated))
    return 0 if rotated.complete else 1


def _report(line: str) -> None:
    sys.stderr.write(f"{line}\n")
