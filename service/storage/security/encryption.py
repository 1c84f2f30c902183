"""Seals secrets for storage: AES-256-GCM, bound to the place they are kept in.

A sealed value is `1 | key id 4 | nonce 12 | ciphertext and tag`. The associated data is the
owner's name, so a value that was copied to another place does not open there.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from service.domain.errors import SealError

_VERSION: Final = b"1"
_KEY_ID: Final = slice(1, 5)
_NONCE: Final = slice(5, 17)
_NONCE_BYTES: Final = 12  # the size GCM is defined for; random ones suffice for 2^32 seals
_CIPHERTEXT: Final = slice(17, None)


class Sealer:
    """Seals with the first of its keys (32 bytes each) and opens what any of them sealed."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys:
            raise ValueError("at least one encryption key is needed")
        self._key_id = _key_id(keys[0])
        self._ciphers = {_key_id(key): AESGCM(key) for key in keys}
        self._marking_keys = [hmac.digest(key, b"coursewire mark", "sha256") for key in keys]
        self.key_names = tuple(_key_id(key).hex() for key in keys)

    @property
    def first(self) -> str:
        """The name of the key that seals."""
        return self.key_names[0]

    def seal(self, plain: bytes, owner: str) -> bytes:
        """The sealed form of `plain`, which opens only for the same `owner`."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        ciphertext = self._ciphers[self._key_id].encrypt(nonce, plain, owner.encode())
        return b"".join((_VERSION, self._key_id, nonce, ciphertext))

    def mark(self, content: bytes) -> bytes:
        """A digest (32 bytes) that tells whether content is the same, and nothing of it to those
        without the keys: a plain one would let them try out what it may have been."""
        return _mark(self._marking_keys[0], content)

    def is_marked(self, content: bytes, mark: bytes) -> bool:
        """Whether a mark is that of this content, under any of the keys."""
        return any(hmac.compare_digest(_mark(key, content), mark) for key in self._marking_keys)

    def open(self, sealed: bytes, owner: str) -> bytes:
        """What was sealed. Raises SealError if no key fits, or it was moved or altered."""
        cipher = self._ciphers.get(sealed[_KEY_ID])
        if sealed[:1] != _VERSION or cipher is None:
            raise SealError
        try:
            return cipher.decrypt(sealed[_NONCE], sealed[_CIPHERTEXT], owner.encode())
        except (InvalidTag, ValueError):
            raise SealError from None


def _mark(key: bytes, content: bytes) -> bytes:
    return hmac.digest(key, content, "sha256")


def key_name(sealed: bytes) -> str | None:
    """The name of the key that sealed a value, None if it is no sealed value. A name is eight hex
    digits, taken of a digest of the key, and gives nothing of it away."""
    if sealed[:1] != _VERSION or len(sealed) < _CIPHERTEXT.start:
        return None
    return sealed[_KEY_ID].hex()


# --- who owns what is sealed: two places share an owner in nothing ----------------------------


def owner_of_api_key(credential_id: str) -> str:
    """Of the upstream's API key of a credential."""
    return f"credential:{credential_id}:api_key"


def owner_in_subscription(subscription_id: str, field: str) -> str:
    """Of the `secrets`, the `headers` or the `client_certificate` of a subscription, or of what its
    receiver answered (`attempts`)."""
    return f"subscription:{subscription_id}:{field}"


def owner_of_reply(name: str) -> str:
    """Of the answer kept for an actor's idempotency key."""
    return f"reply:{name}"


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"coursewire key id" + key).digest()[:4]
