"""Encrypts secrets for storage: AES-256-GCM, bound to their location.

An encrypted value is `1 | key id 4 | nonce 12 | ciphertext and tag`. The associated data is the
owner's name, so a value that was copied to another place cannot be decrypted there.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from service.domain.errors import DecryptionError

_VERSION: Final = b"1"
_KEY_ID: Final = slice(1, 5)
_NONCE: Final = slice(5, 17)
_NONCE_BYTES: Final = 12  # the size GCM is defined for; random ones suffice for 2^32 encrypts
_CIPHERTEXT: Final = slice(17, None)


class Encryptor:
    """Encrypts with the first of its keys (32 bytes each) and decrypts with any of them."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys:
            raise ValueError("at least one encryption key is needed")
        self._key_id = _key_id(keys[0])
        self._ciphers = {_key_id(key): AESGCM(key) for key in keys}
        self._marking_keys = [hmac.digest(key, b"coursewire mark", "sha256") for key in keys]
        self.key_names = tuple(_key_id(key).hex() for key in keys)

    @property
    def first(self) -> str:
        """The name of the key that encrypts."""
        return self.key_names[0]

    def encrypt(self, plain: bytes, owner: str) -> bytes:
        """The encrypted form of `plain`, which only the same `owner` can decrypt."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        ciphertext = self._ciphers[self._key_id].encrypt(nonce, plain, owner.encode())
        return b"".join((_VERSION, self._key_id, nonce, ciphertext))

    def mark(self, content: bytes) -> bytes:
        """A digest (32 bytes) that identifies equal content. It depends on a key, because a plain
        digest would allow guessing the content."""
        return self.marks(content)[0]

    def marks(self, content: bytes) -> list[bytes]:
        """The possible marks of content, that under the first key first."""
        return [hmac.digest(key, content, "sha256") for key in self._marking_keys]

    def is_marked(self, content: bytes, mark: bytes) -> bool:
        """Whether a mark belongs to this content, under any of the keys."""
        return any(hmac.compare_digest(one, mark) for one in self.marks(content))

    def decrypt(self, encrypted: bytes, owner: str) -> bytes:
        """The plain content. Raises DecryptionError if no key fits, or the value was moved or
        altered."""
        cipher = self._ciphers.get(encrypted[_KEY_ID])
        if encrypted[:1] != _VERSION or cipher is None:
            raise DecryptionError
        try:
            return cipher.decrypt(encrypted[_NONCE], encrypted[_CIPHERTEXT], owner.encode())
        except (InvalidTag, ValueError):
            raise DecryptionError from None


def marked_api_key(api_key: bytes) -> bytes:
    """The marked content for an upstream's API key, to find the credential with it."""
    return b"upstream API key " + api_key


def key_name(encrypted: bytes) -> str | None:
    """The name of the key that encrypted a value, None if it is not an encrypted value.

    A name is eight hex digits of a digest of the key, and reveals nothing of it.
    """
    if encrypted[:1] != _VERSION or len(encrypted) < _CIPHERTEXT.start:
        return None
    return encrypted[_KEY_ID].hex()


# --- the owners of encrypted values: each location has its own -----------------------------------


def owner_of_api_key(credential_id: str) -> str:
    """The owner for the upstream's API key of a credential."""
    return f"credential:{credential_id}:api_key"


def owner_in_subscription(subscription_id: str, field: str) -> str:
    """The owner for the `secrets`, the `headers` or the `client_certificate` of a subscription, or
    its receiver's responses (`attempts`)."""
    return f"subscription:{subscription_id}:{field}"


def owner_of_reply(name: str) -> str:
    """The owner for the stored response to an actor's idempotency key."""
    return f"reply:{name}"


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"coursewire key id" + key).digest()[:4]
