"""Headers that a subscription adds to each push."""

from __future__ import annotations

import re
from typing import Annotated, Any

from msgspec import Meta

from service.api.fields.kinds import read_pairs
from service.api.fields.readers import expect
from service.api.fields.refusals import Refusal
from service.domain.access.pasted_secrets import is_visible, trimmed

MAX_HEADERS = 20
MAX_HEADER_LENGTH = 2_000  # characters of one value
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Headers that every push has, or that would change its framing.
_RESERVED_HEADERS = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "coursewire-replay",
        "webhook-id",
        "webhook-signature",
        "webhook-timestamp",
    }
)


def _read_pair(name: str, content: Any) -> tuple[str, str]:
    if not _HEADER_NAME.fullmatch(name):
        raise Refusal("is not a header name", "use letters, digits and -")
    if name.lower() in _RESERVED_HEADERS:
        raise Refusal("is set by the service itself", "leave it out")
    if content is None:
        raise Refusal(
            "has no value; values are write-only",
            "send every header with its value, or leave headers out to keep them",
        )
    expect(content, str, "text")
    if len(content) > MAX_HEADER_LENGTH:
        raise Refusal(f"has {len(content)} characters", f"send at most {MAX_HEADER_LENGTH}")
    value = trimmed(content, quotes=False)
    wrong = value.wrong(lambda one: one == " " or is_visible(one))
    if wrong is not None:
        raise Refusal(f"is not a header value: {wrong}", "use visible ASCII characters")
    if not value.text:
        raise Refusal("is blank", "send visible ASCII characters")
    return name.lower(), value.text


def _read(value: Any) -> dict[str, str]:
    return read_pairs(value, MAX_HEADERS, _read_pair)


_SCHEMA = {
    "type": "object",
    "maxProperties": MAX_HEADERS,
    "additionalProperties": {"type": "string", "minLength": 1, "maxLength": MAX_HEADER_LENGTH},
    "examples": [{"authorization": "Bearer ..."}],
}
PushHeaders = Annotated[
    dict[str, str], Meta(extra_json_schema=_SCHEMA, extra={"read": _read})
]  # their names are read to lower case
