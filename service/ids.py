"""Generates identifiers from the system's randomness."""

from __future__ import annotations

import secrets

from service.domain.events.identifiers import SUFFIX_LENGTH, encode_random

_LENGTH = 20  # characters of 5 bits: 100 random bits


def new_id(prefix: str) -> str:
    """A new identifier such as `int_...`; unique by its randomness alone."""
    return f"{prefix}_{encode_random(secrets.token_bytes(_LENGTH), _LENGTH)}"


def event_suffixes(count: int) -> list[str]:
    """The random parts of `count` event ids."""
    source = secrets.token_bytes(SUFFIX_LENGTH * count)
    return [
        encode_random(source[start : start + SUFFIX_LENGTH], SUFFIX_LENGTH)
        for start in range(0, SUFFIX_LENGTH * count, SUFFIX_LENGTH)
    ]


def new_token() -> str:
    """A lease token: 128 random bits."""
    return secrets.token_hex(16)
