from __future__ import annotations

import pytest

from service.domain.errors import SealError
from service.storage.security.encryption import Sealer

OLD, NEW = b"o" * 32, b"n" * 32


def test_what_is_sealed_opens_for_its_owner() -> None:
    sealer = Sealer([OLD])
    assert sealer.open(sealer.seal(b"key", "credential:a"), "credential:a") == b"key"


def test_the_same_secret_is_sealed_differently_each_time() -> None:
    sealer = Sealer([OLD])
    assert sealer.seal(b"key", "a") != sealer.seal(b"key", "a")


def test_a_sealed_secret_does_not_open_for_another_owner() -> None:
    sealer = Sealer([OLD])
    sealed = sealer.seal(b"key", "credential:a")
    with pytest.raises(SealError):
        sealer.open(sealed, "credential:b")


def test_the_first_key_seals_and_every_key_opens() -> None:
    sealed = Sealer([OLD]).seal(b"key", "a")
    rotated = Sealer([NEW, OLD])
    assert rotated.open(sealed, "a") == b"key"
    with pytest.raises(SealError):
        Sealer([OLD]).open(rotated.seal(b"key", "a"), "a")


@pytest.mark.parametrize("damage", [lambda s: s[:-1], lambda s: s[:10], lambda s: b"9" + s[1:]])
def test_a_damaged_value_does_not_open(damage) -> None:
    sealer = Sealer([OLD])
    with pytest.raises(SealError):
        sealer.open(damage(sealer.seal(b"key", "a")), "a")


def test_an_empty_value_does_not_open() -> None:
    with pytest.raises(SealError):
        Sealer([OLD]).open(b"", "a")


def test_no_key_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Sealer([])
