"""Standard Webhooks headers.

Source: the Standard Webhooks specification 1.0 (standardwebhooks.com): `v1` is HMAC-SHA256
over "id.timestamp.body" under the base64-decoded part of a `whsec_` secret.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable

SECRET_PREFIX = "whsec_"  # noqa: S105 - the published prefix, not a secret
MIN_SECRET_BYTES = 24
MAX_SECRET_BYTES = 64


def decode_secret(secret: str) -> bytes:
    """The key of a `whsec_` secret. Raises ValueError saying what is wrong with it."""
    if not secret.startswith(SECRET_PREFIX):
        raise ValueError(f"a secret starts with {SECRET_PREFIX!r}")
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except ValueError:
        raise ValueError(f"after {SECRET_PREFIX!r} a secret is standard base64") from None
    if not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        raise ValueError(
            f"a secret decodes to {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes, "
            f"this one to {len(key)}"
        )
    return key


def encode_secret(key: bytes) -> str:
    """The `whsec_` form of a key."""
    return SECRET_PREFIX + base64.b64encode(key).decode()


def sign(keys: Iterable[bytes], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of one attempt; every key signs, the newest first.

    `timestamp` is that of the attempt, in epoch seconds.
    """
    content = b".".join((message_id.encode(), str(timestamp).encode(), body))
    signatures = (
        base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode() for key in keys
    )
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
