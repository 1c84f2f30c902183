"""Removes secrets from text that was received from a system to which they were sent."""

from __future__ import annotations

import base64
import binascii
import html
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from typing import Final
from urllib.parse import quote, quote_plus

MARK: Final = "…"
_SHORTEST: Final = 4  # characters of a secret; shorter ones would match everywhere
_LONGEST_FORM: Final = 12  # bytes for each character at most: one outside the BMP, in JSON


class Redactor:
    """Replaces secrets by an ellipsis, as they are and as programs usually write them: in JSON, in
    a URL, in HTML, in base64 and in hexadecimal digits.

    In a secret of several words, such as `Bearer …`, the last word is also a secret, and so is the
    part after the prefix of a signing secret. `reach` is the number of bytes to read after the
    wanted part, so that a secret that ends there is still found.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = tuple(secrets)
        self.reach = _LONGEST_FORM * max(map(len, self._secrets), default=0)

    @cached_property
    def _written(self) -> list[bytes]:
        """All forms of all secrets, the longest first."""
        forms = {form for one in self._secrets for form in _forms(one)}
        return sorted((form.encode() for form in forms), key=len, reverse=True)

    @cached_property
    def _pattern(self) -> re.Pattern[bytes] | None:
        # Created at the first response that is not empty, because most are empty.
        return re.compile(b"|".join(map(re.escape, self._written))) if self._written else None

    def excerpt(self, content: bytes, length: int) -> bytes:
        """The first `length` bytes of `content`, or less, without secrets."""
        if not content or self._pattern is None:
            return content[:length]
        mark, kept, at = MARK.encode(), [], 0
        for found in self._pattern.finditer(content):
            if found.start() >= length:
                break
            kept += [content[at : found.start()], mark]
            at = found.end()
        kept.append(content[at : max(at, length)])
        return b"".join(kept)[:length]

    def text(self, words: str) -> str:
        """Redacts words that may have been cut off within a secret."""
        if self._pattern is None:
            return words
        redacted = self._pattern.sub(MARK.encode(), words.encode())
        for form in self._written:
            for length in range(min(len(form), len(redacted)), _SHORTEST - 1, -1):
                if redacted.endswith(form[:length]):
                    return (redacted[:-length] + MARK.encode()).decode(errors="replace")
        return redacted.decode(errors="replace")


def _forms(secret: str) -> Iterator[str]:
    last_word = secret.rpartition(" ")[2]
    key = secret.removeprefix("whsec_").removeprefix("whsk_")
    for part in {secret, secret.strip(), last_word, key}:
        if len(part) < _SHORTEST:
            continue
        escaped = json.dumps(part)[1:-1]
        yield from (part, escaped, escaped.replace("/", "\\/"), html.escape(part))
        yield from (quote(part, safe=""), quote(part), quote_plus(part))
        raw = part.encode()
        yield base64.b64encode(raw).decode().rstrip("=")
        yield base64.urlsafe_b64encode(raw).decode().rstrip("=")
        yield from _digits(raw)
    with suppress(binascii.Error, ValueError):
        yield from _digits(base64.b64decode(key, validate=True))


def _digits(raw: bytes) -> tuple[str, ...]:
    digits = raw.hex()
    return (digits, digits.upper()) if len(raw) >= _SHORTEST else ()
