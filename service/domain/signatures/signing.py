"""Standard Webhooks: signing secrets, and the headers that they sign attempts with.

Source: the Standard Webhooks specification 1.0 (standardwebhooks.com). Over "id.timestamp.body",
`v1` is HMAC-SHA256 under the base64-decoded part of a `whsec_` secret, and `v1a` is ed25519 under
a `whsk_` key, whose public half, `whpk_`, verifies.
"""

from __future__ import annotations

import base64
import hmac
from binascii import b2a_base64
from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from service.domain.access.pasted_secrets import Pasted, trimmed

HMAC_PREFIX = "whsec_"
PRIVATE_PREFIX = "whsk_"
PUBLIC_PREFIX = "whpk_"
MIN_SECRET_BYTES = 24
MAX_SECRET_BYTES = 64
SEED_BYTES = 32  # of an ed25519 private key, written as its seed, or seed and public half
MAX_IN_FORCE = 5  # secrets that sign at the same time, each with a signature in the header
_VERSIONS: Final = ("v1,", "v1a,")  # of signatures, which some services write before a secret
_BASE64: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_")


class Signature(StrEnum):
    """How pushes are signed: with a shared secret (`v1`), or a private key (`v1a`)."""

    HMAC = "hmac"
    ED25519 = "ed25519"


class HmacKey:
    """The key of a `whsec_` secret."""

    signature = Signature.HMAC
    public_key = None

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._started = hmac.new(key, digestmod="sha256")  # copied, because starting is slow

    @property
    def secret(self) -> str:
        """Its `whsec_` form."""
        return HMAC_PREFIX + base64.b64encode(self._key).decode()

    def sign(self, content: bytes) -> str:
        """The signature of `content` in the form of the header."""
        started = self._started.copy()
        started.update(content)
        return "v1," + b2a_base64(started.digest(), newline=False).decode()


class Ed25519Key:
    """The key of a `whsk_` secret."""

    signature = Signature.ED25519

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._public = self._key.public_key().public_bytes_raw()

    @property
    def public_half(self) -> bytes:
        """The public key."""
        return self._public

    @property
    def public_key(self) -> str:
        """The public key in the `whpk_` form."""
        return PUBLIC_PREFIX + base64.b64encode(self._public).decode()

    @property
    def secret(self) -> str:
        """Its `whsk_` form: the seed and the public half, as the reference libraries write it."""
        return (
            PRIVATE_PREFIX + base64.b64encode(self._key.private_bytes_raw() + self._public).decode()
        )

    def sign(self, content: bytes) -> str:
        """The signature of `content` in the form of the header."""
        return "v1a," + base64.b64encode(self._key.sign(content)).decode()


SigningKey = HmacKey | Ed25519Key


def signature_of(secret: str) -> Signature:
    """The kind of a secret, determined by its prefix."""
    return Signature.ED25519 if secret.startswith(PRIVATE_PREFIX) else Signature.HMAC


def pasted(text: str) -> Pasted:
    """A secret or public key without text that is often copied along."""
    return trimmed(text, *_VERSIONS)


def read_secret(text: str) -> SigningKey:
    """The key of a `whsec_` or `whsk_` secret, as it may have been pasted.

    Raises ValueError with the fault, without repeating the secret.
    """
    given = pasted(text)
    if given.text.startswith(PRIVATE_PREFIX):
        return _read_private_key(given)
    if given.text.startswith(PUBLIC_PREFIX):
        raise ValueError(f"a {PUBLIC_PREFIX!r} key verifies and cannot sign")
    _expect_prefix(given, HMAC_PREFIX, PRIVATE_PREFIX)
    key = _decode(given, HMAC_PREFIX)
    if not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        raise ValueError(
            f"a {HMAC_PREFIX!r} secret decodes to {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes, "
            f"this one to {len(key)}"
        )
    return HmacKey(key)


def _read_private_key(given: Pasted) -> Ed25519Key:
    pair = _decode(given, PRIVATE_PREFIX)
    if len(pair) not in (SEED_BYTES, 2 * SEED_BYTES):
        raise ValueError(
            f"a {PRIVATE_PREFIX!r} key decodes to {SEED_BYTES} bytes, or {2 * SEED_BYTES} with its "
            f"public half, this one to {len(pair)}"
        )
    key = Ed25519Key(pair[:SEED_BYTES])
    if len(pair) > SEED_BYTES and key.public_half != pair[SEED_BYTES:]:
        raise ValueError(f"the public half of this {PRIVATE_PREFIX!r} key does not match its seed")
    return key


def read_public_key(text: str) -> Ed25519PublicKey:
    """A `whpk_` key. Raises ValueError with the fault."""
    given = pasted(text)
    if not given.text.startswith(PUBLIC_PREFIX):
        raise ValueError(f"a public key starts with {PUBLIC_PREFIX!r}")
    key = _decode(given, PUBLIC_PREFIX)
    if len(key) != SEED_BYTES:
        raise ValueError(
            f"a {PUBLIC_PREFIX!r} key decodes to {SEED_BYTES} bytes, this one to {len(key)}"
        )
    return Ed25519PublicKey.from_public_bytes(key)


def _expect_prefix(given: Pasted, *prefixes: str) -> None:
    """Raises ValueError unless the text starts with the first of `prefixes`."""
    if given.text.startswith(prefixes[0]):
        return
    message = f"a secret starts with {' or '.join(map(repr, prefixes))}"
    for prefix in prefixes:
        if (at := given.text.find(prefix)) > 0:
            raise ValueError(
                f"{message}; here {prefix!r} comes at character {given.start + at + 1}, so remove "
                "what stands before it"
            )
    raise ValueError(message)


def _decode(given: Pasted, prefix: str) -> bytes:
    """The bytes after `prefix`, in standard or URL-safe base64, with or without padding."""
    content = given.without(prefix)
    wrong = content.wrong((_BASE64 | {"="}).__contains__)
    content = content._replace(text=content.text.rstrip("="))
    wrong = wrong or content.wrong(_BASE64.__contains__)
    if wrong is not None:
        raise ValueError(f"after {prefix!r} comes base64, but {wrong}")
    text = content.text.translate({ord("-"): "+", ord("_"): "/"})
    if len(text) % 4 == 1:
        raise ValueError(
            f"after {prefix!r} are {len(text)} characters of base64, which cannot be complete: "
            "copy the whole key"
        )
    return base64.b64decode(text + "=" * (-len(text) % 4))


def make_secret(signature: Signature, entropy: bytes) -> str:
    """A secret made of 32 random bytes."""
    kind = Ed25519Key if signature is Signature.ED25519 else HmacKey
    return kind(entropy).secret


class SigningSecret(msgspec.Struct, frozen=True):
    """A secret that signs attempts before `expires_at` (epoch ms, None: until it is rotated), by
    the clock of the attempt's timestamp header."""

    secret: str
    expires_at: int | None = None


def in_force(secrets: Iterable[SigningSecret], now_ms: int) -> list[SigningSecret]:
    """Those that sign at `now_ms`."""
    return [one for one in secrets if one.expires_at is None or now_ms < one.expires_at]


def rotated(
    secrets: Sequence[SigningSecret], new: str, overlap_ms: int, now_ms: int
) -> list[SigningSecret]:
    """The secrets after a rotation at `now_ms`: the new one, then the earlier valid ones, limited
    to `overlap_ms`."""
    end = now_ms + overlap_ms
    ending = [
        SigningSecret(one.secret, end if one.expires_at is None else min(one.expires_at, end))
        for one in secrets
    ]
    return [SigningSecret(new), *in_force(ending, now_ms)]


def sign(
    keys: Iterable[SigningKey], message_id: str, timestamp: int, body: bytes
) -> dict[str, str]:
    """The three headers of one attempt; every key signs, the newest first.

    `timestamp` is that of the attempt, in epoch seconds.
    """
    seconds = str(timestamp)
    content = b".".join((message_id.encode(), seconds.encode(), body))
    return {
        "webhook-id": message_id,
        "webhook-timestamp": seconds,
        "webhook-signature": " ".join([key.sign(content) for key in keys]),
    }


_read_once = lru_cache(maxsize=4096)(read_secret)  # each turn on an outbox makes a signer


class Signer:
    """Signs attempts with a subscription's secrets that are valid at their time. Raises ValueError
    if a secret cannot be used."""

    def __init__(self, secrets: Iterable[SigningSecret]) -> None:
        self._keys = [(_read_once(one.secret), one.expires_at) for one in secrets]

    def headers(self, message_id: str, at: int, body: bytes) -> dict[str, str]:
        """The headers of an attempt that is made `at` (epoch ms)."""
        keys = [key for key, end in self._keys if end is None or at < end]
        return sign(keys, message_id, at // 1000, body)
