"""Checks the stored secrets: which key decrypts each, and which keys running processes have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from service.commands.doctor.findings import Found, Level
from service.storage.security.encrypted_values import KINDS, EncryptedValues
from service.storage.security.encryption import Encryptor
from service.storage.security.key_holders import Process, Processes


async def secrets(
    encrypted: EncryptedValues, encryptor: Encryptor, processes: Processes, most: int | None
) -> Found:
    """Whether every stored secret can be decrypted, and which key encrypted it."""
    encrypted_with, spoiled = await _examined(encrypted, most)
    found: list[tuple[Level, str]] = []
    if spoiled:
        shown = ", ".join(spoiled[:5]) + (" and others" if len(spoiled) > 5 else "")
        found.append(
            (
                "fail",
                (
                    f"the secrets of {len(spoiled)} resources cannot be decrypted: {shown}; "
                    "add the key that encrypted them to ENCRYPTION_KEYS, after the first, or store "
                    "the secrets again"
                ),
            )
        )
    old = [
        f"{encrypted_with[name]} with key {name}"
        for name in encryptor.key_names[1:]
        if encrypted_with[name]
    ]
    if old:
        found.append(
            (
                "warn",
                (
                    f"encrypted with an older key: {', '.join(old)}; `coursewire rotate-keys` "
                    "encrypts them with the first, while everything runs"
                ),
            )
        )
    found += _differing(await processes.alive(), set(encrypted_with), encryptor.first)
    if found:
        return found
    opened = encrypted_with.total()
    said = f"all {opened} checked secrets can be decrypted and use the first key, {encryptor.first}"
    return [("ok", said)]


async def _examined(encrypted: EncryptedValues, most: int | None) -> tuple[Counter[str], list[str]]:
    """The number of values that each key decrypts, by its name, and the owners of those that no key
    decrypts.

    Of all values, or of the oldest of each kind, which an old key most likely encrypted.
    """
    encrypted_with, spoiled = Counter[str](), list[str]()
    for kind in KINDS:
        looked_at = 0
        async for page in encrypted.pages(kind):
            for one in page if most is None else page[: most - looked_at]:
                if (name := one.key_name) is not None and encrypted.can_decrypt(one):
                    encrypted_with[name] += 1
                elif one.location.id not in spoiled:
                    spoiled.append(one.location.id)
            looked_at += len(page)
            if most is not None and looked_at >= most:
                break
    return encrypted_with, spoiled


def _differing(processes: Sequence[Process], in_use: set[str], first: str) -> Found:
    """Faults in the keys of running processes."""
    found: list[tuple[Level, str]] = []
    lacking = [one.name for one in processes if not in_use <= set(one.key_names)]
    if lacking:
        found.append(
            (
                "fail",
                (
                    f"{', '.join(lacking)} lack a key that secrets are encrypted with; restart "
                    "them with the same ENCRYPTION_KEYS as here"
                ),
            )
        )
    others = [one.name for one in processes if one.key_names[0] != first]
    if others:
        found.append(
            (
                "warn",
                (
                    f"{', '.join(others)} encrypt with another key than {first}, the first one "
                    "here; restart them with the same ENCRYPTION_KEYS"
                ),
            )
        )
    return found
