"""Parsers of field values: what they take, said in code and in JSON Schema side by side."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from urllib.parse import quote

import httpx
import msgspec
from litestar.openapi.spec import OpenAPIFormat, OpenAPIType, Reference, Schema

from service.api.schema.form import FieldError, Parser, Refusal, Table
from service.domain.access.pasted_secrets import is_visible, trimmed
from service.domain.access.signing import read_secret

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_CONTROLS = r"\u0000-\u0008\u000b-\u001f\u007f-\u009f"  # but for tabs and line feeds
_LINE_BREAKS = r"\u000a\u2028\u2029"  # beyond those among the controls
_CONTROL = re.compile(f"[{_CONTROLS}]")
_LINE_BREAK = re.compile(f"[{_LINE_BREAKS}]")
_TIMESTAMP = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.IGNORECASE | re.ASCII
)
_AUTHORITY = re.compile(r"[^:]*://[^/?#]*")
_NOT_IN_A_PLACE = re.compile(r"[^\x21-\x7e]|\\")
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# What a push carries by itself, or what would change how it is framed.
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
NOW = "now"
OLDEST = "oldest"
MAX_HEADERS = 20
MAX_HEADER_LENGTH = 2_000  # characters of one value
MAX_URL_LENGTH = 2_000
MAX_LABELS = 50
KEY_PREFIXES = ("authorization:", "bearer ")  # of a key that was copied with its header


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case _:
            return "an object"


def _expect(value: Any, kind: type | tuple[type, ...], name: str) -> None:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise Refusal(f"must be {name}, not {_kind(value)}", f"send {name}")


def nullable(parser: Parser) -> Parser:
    """What `parser` takes, or null."""

    def parse(value: Any) -> Any:
        return None if value is None else parser.parse(value)

    schema = parser.schema
    null = Schema(type=OpenAPIType.NULL)
    return Parser(parse, Schema(one_of=[schema, null]))


def text(most: int, *, lines: bool = False) -> Parser:
    """Text of 1 to `most` characters; `lines` allows line breaks."""

    def parse(value: Any) -> str:
        _expect(value, str, "text")
        if not value.strip():
            raise Refusal("is blank", f"send 1 to {most} characters")
        if len(value) > most:
            raise Refusal(f"has {len(value)} characters", f"send at most {most}")
        if _CONTROL.search(value) or (not lines and _LINE_BREAK.search(value)):
            raise Refusal("contains control characters", "remove them")
        return str(value)

    forbidden = _CONTROLS if lines else _CONTROLS + _LINE_BREAKS
    return Parser(
        parse,
        Schema(
            type=OpenAPIType.STRING,
            min_length=1,
            max_length=most,
            # Something that is no blank, and nothing that is forbidden around it.
            pattern=rf"^[^{forbidden}]*[^\s{forbidden}][^{forbidden}]*$",
        ),
    )


def any_text(most: int, example: str | None = None) -> Parser:
    """Text of 1 to `most` characters of any kind, as the upstream may have chosen it."""

    def parse(value: Any) -> str:
        _expect(value, str, "text")
        if not 1 <= len(value) <= most:
            raise Refusal(f"has {len(value)} characters", f"send 1 to {most}")
        return str(value)

    examples = None if example is None else [example]
    return Parser(
        parse,
        Schema(type=OpenAPIType.STRING, min_length=1, max_length=most, examples=examples),
    )


def visible(most: int, example: str | None = None) -> Parser:
    """Text that goes into an HTTP header: 1 to `most` visible ASCII characters, no blanks."""
    remedy = "send it as the upstream shows it"
    if example is not None:
        remedy += f", for example {example}"

    def parse(value: Any) -> str:
        _expect(value, str, "text")
        if len(value) > most:
            raise Refusal(f"has {len(value)} characters", f"send at most {most}")
        if not _VISIBLE.fullmatch(value):
            raise Refusal(
                "contains blanks or characters outside ASCII" if value else "is empty",
                remedy,
            )
        return str(value)

    return Parser(
        parse,
        Schema(
            type=OpenAPIType.STRING,
            min_length=1,
            max_length=most,
            pattern=f"^{_VISIBLE.pattern}$",
            examples=[example] if example is not None else None,
        ),
    )


def pasted_key(most: int) -> Parser:
    """A key that goes into an `Authorization` header, as somebody may have pasted it."""

    def parse(value: Any) -> str:
        _expect(value, str, "text")
        key = trimmed(value, *KEY_PREFIXES)
        wrong = key.wrong(is_visible)
        if wrong is not None:
            raise Refusal(f"is not a key: {wrong}", "copy it again; a key is visible ASCII")
        if not key.text:
            raise Refusal("is blank", "send the key")
        if len(key.text) > most:
            raise Refusal(f"has {len(key.text)} characters", f"send at most {most}")
        return key.text

    schema = Schema(
        type=OpenAPIType.STRING, min_length=1, max_length=most, format=_format("pasted-key")
    )
    return Parser(parse, schema)


def identifier(prefix: str) -> Parser:
    """The id of a resource."""
    pattern = re.compile(f"{prefix}_[0-9a-z]{{1,64}}")

    def parse(value: Any) -> str:
        _expect(value, str, "text")
        if not pattern.fullmatch(value):
            raise Refusal(f"is not an id of the form {prefix}_...", "copy it from the API")
        return str(value)

    return Parser(parse, Schema(type=OpenAPIType.STRING, pattern=f"^{pattern.pattern}$"))


def boolean() -> Parser:
    """True or false."""

    def parse(value: Any) -> bool:
        _expect(value, bool, "true or false")
        return bool(value)

    return Parser(parse, Schema(type=OpenAPIType.BOOLEAN))


def whole_number(least: int, most: int, unit: str = "") -> Parser:
    """A whole number from `least` to `most`."""
    expected = f"a whole number from {least} to {most}{unit and f' ({unit})'}"

    def parse(value: Any) -> int:
        _expect(value, (int, float), "a number")
        if isinstance(value, float) and not value.is_integer():
            raise Refusal(f"{value:g} is not a whole number", f"send {expected}")
        if not least <= value <= most:
            raise Refusal(f"{value} is out of range", f"send {expected}")
        return int(value)

    return Parser(parse, Schema(type=OpenAPIType.INTEGER, minimum=least, maximum=most))


def number(least: float, most: float, unit: str) -> Parser:
    """A number from `least` to `most`."""

    def parse(value: Any) -> float:
        _expect(value, (int, float), "a number")
        if not least <= value <= most:
            raise Refusal(
                f"{value:g} is out of range", f"send a number from {least:g} to {most:g} ({unit})"
            )
        return float(value)

    return Parser(parse, Schema(type=OpenAPIType.NUMBER, minimum=least, maximum=most))


def timestamp() -> Parser:
    """A moment in RFC 3339, as epoch ms."""
    remedy = "send for example 2026-11-23T09:30:00Z"

    def parse(value: Any) -> int:
        _expect(value, str, "text")
        if not _TIMESTAMP.fullmatch(value):
            raise Refusal("is not a time in RFC 3339", remedy)
        try:
            milliseconds = (datetime.fromisoformat(value.upper()) - _EPOCH) // _MILLISECOND
        except ValueError:
            raise Refusal("is not a time", remedy) from None
        return max(milliseconds, 0)  # nothing here happened before

    return Parser(
        parse,
        Schema(
            type=OpenAPIType.STRING,
            format=OpenAPIFormat.DATE_TIME,
            examples=["2026-11-23T09:30:00Z"],
        ),
    )


def one_of(choices: Iterable[str]) -> Parser:
    """One of some words; a word of an enumeration parses to its member."""
    members = {str(choice): choice for choice in choices}
    known = tuple(members)

    def parse(value: Any) -> str:
        _expect(value, str, "text")
        if value not in known:
            near = difflib.get_close_matches(value[:100], known, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"send one of {', '.join(known)}"
            raise Refusal(f"{value[:100]!r} is not known", remedy)
        return members[value]

    return Parser(parse, Schema(type=OpenAPIType.STRING, enum=known))


def beginning() -> Parser:
    """One of the words `now` and `oldest`, or a time as epoch ms."""
    words, time = one_of((NOW, OLDEST)), timestamp()

    def parse(value: Any) -> str | int:
        if value in (NOW, OLDEST):
            return str(value)
        try:
            return int(time.parse(value))
        except Refusal:
            raise Refusal(
                "is neither now nor oldest nor an RFC 3339 time",
                "send for example 2026-11-23T09:30:00Z",
            ) from None

    return Parser(parse, Schema(one_of=[words.schema, time.schema]))


def list_of(item: Parser, *, least: int, most: int, distinct: bool = True) -> Parser:
    """A list of `least` to `most` items, each once if `distinct`; parses to a tuple."""

    def parse(value: Any) -> tuple[Any, ...]:
        _expect(value, list, "a list")
        if not least <= len(value) <= most:
            raise Refusal(f"has {len(value)} items", f"send {least} to {most}")
        parsed: list[Any] = []
        found: list[FieldError] = []
        for index, element in enumerate(value):
            path = f"[{index}]"
            try:
                one = item.parse(element)
            except Refusal as refusal:
                found += refusal.below(path)
                continue
            if distinct and one in parsed:
                found.append(FieldError(path, "repeats an earlier item", "leave it out"))
            parsed.append(one)
        if found:
            raise Refusal.of(found)
        return tuple(parsed)

    return Parser(
        parse,
        Schema(
            type=OpenAPIType.ARRAY,
            items=item.schema,
            min_items=least,
            max_items=most,
            unique_items=distinct or None,
        ),
    )


def _mapping(
    value: Any, most: int, parse_pair: Callable[[str, Any], tuple[str, str]]
) -> dict[str, str]:
    _expect(value, dict, "an object")
    if len(value) > most:
        raise Refusal(f"has {len(value)} entries", f"send at most {most}")
    parsed: dict[str, str] = {}
    found: list[FieldError] = []
    for name, content in value.items():
        path = f".{name[:64]}"
        try:
            key, one = parse_pair(name, content)
        except Refusal as refusal:
            found += refusal.below(path)
            continue
        if key in parsed:
            found.append(FieldError(path, "repeats an earlier name", "leave it out"))
        parsed[key] = one
    if found:
        raise Refusal.of(found)
    return parsed


def labels() -> Parser:
    """Names and values of the operator's own."""
    name_parser, value_parser = text(64), text(256)

    def parse_pair(name: str, content: Any) -> tuple[str, str]:
        return name_parser.parse(name), value_parser.parse(content)

    def parse(value: Any) -> dict[str, str]:
        return _mapping(value, MAX_LABELS, parse_pair)

    return Parser(
        parse,
        Schema(
            type=OpenAPIType.OBJECT,
            max_properties=MAX_LABELS,
            property_names=name_parser.schema,
            additional_properties=value_parser.schema,
            examples=[{"region": "eu"}],
        ),
    )


def fields_of(table: Table) -> Parser:
    """An object of named fields, any of which may be left out."""

    def parse(value: Any) -> dict[str, Any]:
        _expect(value, dict, "an object")
        parsed: dict[str, Any] = {}
        found: list[FieldError] = []
        for name, content in value.items():
            path = f".{name[:64]}"
            if name not in table:
                found.append(FieldError(path, "is not known", f"known are {', '.join(table)}"))
                continue
            try:
                parsed[name] = table[name].parser.parse(content)
            except Refusal as refusal:
                found += refusal.below(path)
        if found:
            raise Refusal.of(found)
        return parsed

    properties: dict[str, Reference | Schema] = {
        name: replace(field.parser.schema, description=field.meaning, default=field.default)
        for name, field in table.items()
    }
    return Parser(
        parse,
        Schema(type=OpenAPIType.OBJECT, properties=properties, additional_properties=False),
    )


def headers() -> Parser:
    """Headers to send with each push; names parse to lower case."""

    def parse_pair(name: str, content: Any) -> tuple[str, str]:
        if not _HEADER_NAME.fullmatch(name):
            raise Refusal("is not a header name", "use letters, digits and -")
        if name.lower() in _RESERVED_HEADERS:
            raise Refusal("is set by the service itself", "leave it out")
        if content is None:
            raise Refusal(
                "has no value; values are write-only",
                "send every header with its value, or leave headers out to keep them",
            )
        _expect(content, str, "text")
        if len(content) > MAX_HEADER_LENGTH:
            raise Refusal(f"has {len(content)} characters", f"send at most {MAX_HEADER_LENGTH}")
        value = trimmed(content, quotes=False)
        wrong = value.wrong(lambda one: one == " " or is_visible(one))
        if wrong is not None:
            raise Refusal(f"is not a header value: {wrong}", "use visible ASCII characters")
        if not value.text:
            raise Refusal("is blank", "send visible ASCII characters")
        return name.lower(), value.text

    def parse(value: Any) -> dict[str, str]:
        return _mapping(value, MAX_HEADERS, parse_pair)

    return Parser(
        parse,
        Schema(
            type=OpenAPIType.OBJECT,
            max_properties=MAX_HEADERS,
            additional_properties=Schema(
                type=OpenAPIType.STRING, max_length=MAX_HEADER_LENGTH, min_length=1
            ),
            examples=[{"authorization": "Bearer ..."}],
        ),
    )


def _url(value: Any) -> httpx.URL:
    _expect(value, str, "text")
    if len(value) > MAX_URL_LENGTH:
        raise Refusal(f"has {len(value)} characters", f"send at most {MAX_URL_LENGTH}")
    try:
        parts = httpx.URL(value)
    except (httpx.InvalidURL, ValueError):
        raise Refusal("is not a URL", "send for example https://example.com/path") from None
    if parts.scheme not in ("http", "https") or not parts.host:
        raise Refusal("is not an http(s) URL", "send for example https://example.com/path")
    return parts


def _check_place(value: str) -> None:
    """Refuses what a request line cannot carry; a host's name is written otherwise there."""
    found = _NOT_IN_A_PLACE.search(_AUTHORITY.sub("", value, count=1))
    if found is not None:
        try:
            written = quote(found[0])
        except UnicodeEncodeError:  # half of a surrogate pair
            raise Refusal("contains text that is not Unicode", "remove it") from None
        raise Refusal(f"contains {found[0]!r}, which HTTP cannot carry", f"write it as {written}")


def url(example: str) -> Parser:
    """An http(s) URL, as it was sent."""

    def parse(value: Any) -> str:
        _url(value)
        _check_place(value)
        return str(value)

    return Parser(parse, _url_schema(example))


def base_url(example: str) -> Parser:
    """An http(s) URL that paths are put behind; the same place parses to the same text."""

    def parse(value: Any) -> str:
        parts = _url(value)
        if parts.query or "?" in value:
            raise Refusal("has a query", "leave out the ? and what follows")
        # Read twice: a default port is recognized only behind a scheme in lower case.
        return str(httpx.URL(str(parts))).rstrip("/")

    return Parser(parse, _url_schema(example))


def _url_schema(example: str) -> Schema:
    return Schema(
        type=OpenAPIType.STRING,
        format=OpenAPIFormat.URI,
        max_length=MAX_URL_LENGTH,
        examples=[example],
    )


def signing_secret() -> Parser:
    """A Standard Webhooks secret, as somebody may have pasted it; the same key parses to the same
    text."""

    def parse(value: Any) -> str:
        _expect(value, str, "text")
        try:
            return read_secret(value).secret
        except ValueError as error:
            raise Refusal(str(error), "leave it out and one is made") from None

    return Parser(
        parse,
        Schema(type=OpenAPIType.STRING, format=_format("signing-secret")),
    )


def _format(name: str) -> OpenAPIFormat:
    """A format of our own; the specification leaves the list open, Litestar's type does not."""
    return cast("OpenAPIFormat", name)


# --- query parameters: a list of texts, as often as the parameter was given ---------------------


def once(parser: Parser) -> Parser:
    """A parameter given once, with what `parser` takes as text."""

    def parse(values: list[str]) -> Any:
        if len(values) > 1:
            raise Refusal(f"is given {len(values)} times", "give it once")
        return parser.parse(values[0])

    return Parser(parse, parser.schema)


def repeated(parser: Parser) -> Parser:
    """A parameter that may be repeated, or hold several values separated by commas."""
    several = list_of(parser, least=1, most=100, distinct=False)

    def parse(values: list[str]) -> Any:
        return several.parse([part for value in values for part in value.split(",")])

    return Parser(parse, several.schema)


def number_in_text(least: int, most: int) -> Parser:
    """A whole number written out."""
    known = whole_number(least, most)

    def parse(value: str) -> int:
        try:
            return int(known.parse(msgspec.json.decode(value)))
        except (msgspec.DecodeError, Refusal):
            raise Refusal(
                f"{value[:100]!r} is not a whole number from {least} to {most}", "correct it"
            ) from None

    return Parser(parse, known.schema)


def cursor(read: Callable[[str], Any], kind: str) -> Parser:
    """A place to go on from, as an earlier answer's `next` gave it. `kind` tells its format from
    those of other lists' cursors."""

    def parse(value: str) -> Any:
        try:
            return read(value)
        except ValueError:
            raise Refusal(
                "is not a cursor of this list", "send the `next` of an earlier answer unchanged"
            ) from None

    return Parser(parse, Schema(type=OpenAPIType.STRING, format=_format(f"{kind}-cursor")))
