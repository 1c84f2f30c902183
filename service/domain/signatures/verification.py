"""Verifies `v1a` signatures, which the official Standard Webhooks library for Python cannot."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

TOLERANCE_SECONDS = 300  # as in the official libraries
_MAX_DIGITS = 15  # of a timestamp; Python refuses to convert longer ones
_VERSION = "v1a,"


def fault(key: Ed25519PublicKey, headers: Mapping[str, str], body: bytes, now: float) -> str | None:
    """Why a push received at `now` (epoch seconds) must be rejected; None if it is valid.

    Header names are in lower case, or `headers` ignores case.
    """
    message_id, timestamp, signatures = (
        headers.get(f"webhook-{name}") for name in ("id", "timestamp", "signature")
    )
    if not (message_id and timestamp and signatures):
        return "missing required headers"
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= _MAX_DIGITS):
        return "webhook-timestamp is no number of seconds"
    if abs(now - int(timestamp)) > TOLERANCE_SECONDS:
        return f"message timestamp too {'old' if int(timestamp) < now else 'new'}"
    content = b".".join((message_id.encode(), timestamp.encode(), body))
    if any(_verifies(key, one, content) for one in _decoded(signatures)):
        return None
    return "no matching signature found"


def _decoded(signatures: str) -> Iterator[bytes]:
    for one in signatures.split(" "):
        if one.startswith(_VERSION):
            try:
                yield base64.b64decode(one.removeprefix(_VERSION), validate=True)
            except ValueError:
                continue  # another one may be well-formed


def _verifies(key: Ed25519PublicKey, signature: bytes, content: bytes) -> bool:
    try:
        key.verify(signature, content)
    except InvalidSignature:
        return False
    return True
