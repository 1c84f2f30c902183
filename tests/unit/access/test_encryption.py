from __future__ import annotations

import pytest

from service.domain.errors import DecryptionError
from service.storage.security.encryption import Encryptor

OLD, NEW = b"o" * 32, b"n" * 32


def test_an_encrypted_value_is_decrypted_for_its_owner() -> None:
    encryptor = Encryptor([OLD])
    assert encryptor.decrypt(encryptor.encrypt(b"key", "credential:a"), "credential:a") == b"key"


def test_the_same_secret_is_encrypted_differently_each_time() -> None:
    encryptor = Encryptor([OLD])
    assert encryptor.encrypt(b"key", "a") != encryptor.encrypt(b"key", "a")


def test_an_encrypted_value_is_not_decrypted_for_another_owner() -> None:
    encryptor = Encryptor([OLD])
    encrypted = encryptor.encrypt(b"key", "credential:a")
    with pytest.raises(DecryptionError):
        encryptor.decrypt(encrypted, "credential:b")


def test_the_first_key_encrypts_and_every_key_decrypts() -> None:
    encrypted = Encryptor([OLD]).encrypt(b"key", "a")
    rotated = Encryptor([NEW, OLD])
    assert rotated.decrypt(encrypted, "a") == b"key"
    with pytest.raises(DecryptionError):
        Encryptor([OLD]).decrypt(rotated.encrypt(b"key", "a"), "a")


@pytest.mark.parametrize("damage", [lambda s: s[:-1], lambda s: s[:10], lambda s: b"9" + s[1:]])
def test_a_damaged_value_is_not_decrypted(damage) -> None:
    encryptor = Encryptor([OLD])
    with pytest.raises(DecryptionError):
        encryptor.decrypt(damage(encryptor.encrypt(b"key", "a")), "a")


def test_an_empty_value_is_not_decrypted() -> None:
    with pytest.raises(DecryptionError):
        Encryptor([OLD]).decrypt(b"", "a")


def test_no_key_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Encryptor([])
