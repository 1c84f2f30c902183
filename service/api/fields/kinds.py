"""Kinds of fields: annotations that define accepted values, in code and in JSON Schema."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from service.api.fields import readers
from service.api.fields.readers import expect
from service.api.fields.refusals import FieldError, Refusal
from service.domain.access.pasted_secrets import is_visible, trimmed
from service.domain.signatures.signing import read_secret

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_CONTROLS = r"\u0000-\u0008\u000b-\u001f\u007f-\u009f"  # all except tab and line feed
_LINE_BREAKS = r"\u000a\u2028\u2029"  # more forbidden characters
_CONTROL = re.compile(f"[{_CONTROLS}]")
_LINE_BREAK = re.compile(f"[{_LINE_BREAKS}]")
_TIMESTAMP = re.compile(
    r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d))?", re.IGNORECASE | re.ASCII
)
_VISIBLE = re.compile(r"[\x21-\x7e]+")
MAX_LABELS = 50
KEY_PREFIXES = ("authorization:", "bearer ")  # prefix of a key that was copied with its header
A_TIME = "send for example 2026-11-23T09:30:00Z, or 2026-11-23"


def means(description: str, **schema: Any) -> Meta:
    """A field's meaning, and the rest of its schema."""
    return Meta(description=description, extra_json_schema=schema or None)


def text(most: int, *, lines: bool = False) -> Meta:
    """Text of 1 to `most` characters; `lines` allows line breaks."""

    def read(value: Any) -> str:
        expect(value, str, "text")
        if not value.strip():
            raise Refusal("is blank", f"send 1 to {most} characters")
        if len(value) > most:
            raise Refusal(f"has {len(value)} characters", f"send at most {most}")
        if _CONTROL.search(value) or (not lines and _LINE_BREAK.search(value)):
            raise Refusal("contains control characters", "remove them")
        return str(value)

    forbidden = _CONTROLS if lines else _CONTROLS + _LINE_BREAKS
    # At least one character that is not blank, and no forbidden ones.
    pattern = rf"^[^{forbidden}]*[^\s{forbidden}][^{forbidden}]*$"
    return Meta(min_length=1, max_length=most, pattern=pattern, extra={"read": read})


def any_text(most: int) -> Meta:
    """Text of 1 to `most` characters of any kind, as the upstream may have chosen."""

    def read(value: Any) -> str:
        expect(value, str, "text")
        if not 1 <= len(value) <= most:
            raise Refusal(f"has {len(value)} characters", f"send 1 to {most}")
        return str(value)

    return Meta(min_length=1, max_length=most, extra={"read": read})


def visible(most: int, example: str) -> Meta:
    """Text that goes into an HTTP header: 1 to `most` visible ASCII characters, no blanks."""

    def read(value: Any) -> str:
        expect(value, str, "text")
        if len(value) > most:
            raise Refusal(f"has {len(value)} characters", f"send at most {most}")
        if not _VISIBLE.fullmatch(value):
            raise Refusal(
                "contains blanks or characters outside ASCII" if value else "is empty",
                f"send it as the upstream shows it, for example {example}",
            )
        return str(value)

    return Meta(
        min_length=1,
        max_length=most,
        pattern=f"^{_VISIBLE.pattern}$",
        examples=[example],
        extra={"read": read},
    )


def pasted_key(most: int) -> Meta:
    """A key for an `Authorization` header, as it may have been pasted."""

    def read(value: Any) -> str:
        expect(value, str, "text")
        key = trimmed(value, *KEY_PREFIXES)
        wrong = key.wrong(is_visible)
        if wrong is not None:
            raise Refusal(
                f"is not a key: {wrong}",
                "copy it again; a key consists of visible ASCII characters",
            )
        if not key.text:
            raise Refusal("is blank", "send the key")
        if len(key.text) > most:
            raise Refusal(f"has {len(key.text)} characters", f"send at most {most}")
        return key.text

    schema = {"format": "pasted-key", "writeOnly": True}
    return Meta(min_length=1, max_length=most, extra_json_schema=schema, extra={"read": read})


def identifier(prefix: str) -> Meta:
    """The id of a resource."""
    pattern = re.compile(f"{prefix}_[0-9a-z]{{1,64}}")

    def read(value: Any) -> str:
        expect(value, str, "text")
        if not pattern.fullmatch(value):
            raise Refusal(f"is not an id of the form {prefix}_...", "copy it from the API")
        return str(value)

    return Meta(pattern=f"^{pattern.pattern}$", extra={"read": read})


IntegrationIds = Annotated[
    tuple[Annotated[str, identifier("int")], ...], Meta(min_length=1, max_length=1_000)
]


def one_of(choices: Iterable[str]) -> Meta:
    """One of several words."""
    reader = readers.one_of(choices)
    return Meta(extra={"read": reader.read}, extra_json_schema=reader.schema)


def read_moment(value: Any) -> int:
    """A time in RFC 3339, or the start of a date in UTC, as epoch ms."""
    expect(value, str, "text")
    if not (found := _TIMESTAMP.fullmatch(value)):
        raise Refusal("is neither a time in RFC 3339 nor a date", A_TIME)
    time = value.upper() if found[1] else f"{value}T00:00:00Z"
    try:
        milliseconds = (datetime.fromisoformat(time) - _EPOCH) // _MILLISECOND
    except ValueError:
        raise Refusal("is not a time", A_TIME) from None
    return max(milliseconds, 0)  # nothing happened here earlier


MOMENT = {
    "type": "string",
    "anyOf": [{"format": "date-time"}, {"format": "date"}],
    "examples": ["2026-11-23T09:30:00Z", "2026-11-23"],
}
Moment = Annotated[int, Meta(extra_json_schema=MOMENT, extra={"read": read_moment})]


def read_pairs(
    value: Any, most: int, read_pair: Callable[[str, Any], tuple[str, str]]
) -> dict[str, str]:
    """An object of names and texts."""
    expect(value, dict, "an object")
    if len(value) > most:
        raise Refusal(f"has {len(value)} entries", f"send at most {most}")
    parsed: dict[str, str] = {}
    found: list[FieldError] = []
    for name, content in value.items():
        path = f".{name[:64]}"
        try:
            key, one = read_pair(name, content)
        except Refusal as refusal:
            found += refusal.below(path)
            continue
        if key in parsed:
            found.append(FieldError(path, "repeats an earlier name", "leave it out"))
        parsed[key] = one
    if found:
        raise Refusal.of(found)
    return parsed


class _Label(readers.Fields, kw_only=True, frozen=True):
    name: Annotated[str, text(64)]
    value: Annotated[str, text(256)]


_NAME, _VALUE = (field.reader for field in readers.fields_of(_Label).values())


def _read_labels(value: Any) -> dict[str, str]:
    return read_pairs(
        value, MAX_LABELS, lambda name, content: (_NAME.read(name), _VALUE.read(content))
    )


_LABELS = {
    "type": "object",
    "maxProperties": MAX_LABELS,
    "propertyNames": _NAME.schema,
    "additionalProperties": _VALUE.schema,
    "examples": [{"region": "eu"}],
}
Labels = Annotated[
    dict[str, str], Meta(extra_json_schema=_LABELS, extra={"read": _read_labels})
]  # the operator's names and values


def read_signing_secret(value: Any) -> str:
    """A Standard Webhooks secret, as it may have been pasted; the same key is read as the same
    text."""
    expect(value, str, "text")
    try:
        return read_secret(value).secret
    except ValueError as error:
        raise Refusal(str(error), "leave it out to have one generated") from None


# --- queries -------------------------------------------------------------------------------------

Item = TypeVar("Item")
Several = Annotated[
    tuple[Item, ...], Meta(min_length=1, max_length=100, extra={"repeats": True, "commas": True})
]


def number_in_text(least: int, most: int) -> Meta:
    """A whole number in digits."""

    def read(value: str) -> int:
        try:
            return int(known.read(msgspec.json.decode(value)))
        except (msgspec.DecodeError, Refusal):
            raise Refusal(
                f"{value[:100]!r} is not a whole number from {least} to {most}", "correct it"
            ) from None

    known = readers.whole_number(least, most)
    return Meta(ge=least, le=most, extra={"read": read})


def cursor(read: Callable[[str], Any], kind: str) -> Meta:
    """A cursor, as `next` of an earlier response. `kind` distinguishes it from cursors of other
    lists."""

    def read_cursor(value: str) -> Any:
        try:
            return read(value)
        except ValueError:
            raise Refusal(
                "is not a cursor of this list", "send the `next` of an earlier response unchanged"
            ) from None

    schema = {"type": "string", "format": f"{kind}-cursor"}
    return Meta(extra_json_schema=schema, extra={"read": read_cursor})
