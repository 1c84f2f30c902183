"""Kinds of fields that are URLs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
from msgspec import Meta

from service.api.fields.readers import expect
from service.api.fields.refusals import Refusal

MAX_URL_LENGTH = 2_000
_AUTHORITY = re.compile(r"[^:]*://[^/?#]*")
_NOT_IN_A_PLACE = re.compile(r"[^\x21-\x7e]|\\")


def _check_place(url: str) -> None:
    """Refuses characters that a request line cannot carry; a host name is encoded differently."""
    found = _NOT_IN_A_PLACE.search(_AUTHORITY.sub("", url, count=1))
    if found is not None:
        try:
            written = quote(found[0])
        except UnicodeEncodeError:  # half of a surrogate pair
            raise Refusal("contains text that is not Unicode", "remove it") from None
        raise Refusal(f"contains {found[0]!r}, which HTTP cannot carry", f"write it as {written}")


def _read_parts(value: Any) -> httpx.URL:
    expect(value, str, "text")
    if len(value) > MAX_URL_LENGTH:
        raise Refusal(f"has {len(value)} characters", f"send at most {MAX_URL_LENGTH}")
    try:
        parts = httpx.URL(value)
    except (httpx.InvalidURL, ValueError):
        raise Refusal("is not a URL", "send for example https://example.com/path") from None
    if parts.scheme not in ("http", "https") or not parts.host:
        raise Refusal("is not an http(s) URL", "send for example https://example.com/path")
    return parts


def read_url(value: Any) -> str:
    """An http(s) URL, as it was sent."""
    _read_parts(value)
    _check_place(value)
    return str(value)


def read_base_url(value: Any) -> str:
    """An http(s) URL that paths are appended to; equivalent URLs are read as the same text."""
    parts = _read_parts(value)
    if parts.query or "?" in value:
        raise Refusal("has a query", "leave out the ? and what follows")
    # Read twice: a default port is recognized only behind a scheme in lower case.
    return str(httpx.URL(str(parts))).rstrip("/")


def url(read: Callable[[Any], str], example: str) -> Meta:
    """An http(s) URL."""
    return Meta(
        max_length=MAX_URL_LENGTH,
        examples=[example],
        extra_json_schema={"format": "uri"},
        extra={"read": read},
    )
