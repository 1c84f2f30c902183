"""Fields of an operation as options of a command, and their values as query and body."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from service.commands.resources.operations import Field

_FEW = 8  # choices that a help text lists
_VALUE_FIRST = re.compile(r"[a-z0-9_]+: |--")  # of a description that begins with a value
_NULL = re.compile(r"\bnull(, or left out)?:")
_AGO = re.compile(r"(\d{1,5})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}  # in seconds


class Content(click.ParamType[Any]):
    """Text, or `@FILE` for the content of a file; `@-` is standard input."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The text."""
        if not isinstance(value, str) or not value.startswith("@"):
            return value
        with click.File().convert(value[1:], param, ctx) as file:
            return str(file.read()).strip()


class Pair(Content):
    """NAME=VALUE; where values are secrets, VALUE may be `@FILE`."""

    name = "NAME=VALUE"

    def __init__(self, *, secret: bool) -> None:
        self._secret = secret

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The name and the value."""
        name, sign, content = str(value).partition("=")
        if not name or not sign:
            self.fail(f"{value!r} is not NAME=VALUE", param, ctx)
        return name, super().convert(content, param, ctx) if self._secret else content


class Json(Content):
    """A JSON object."""

    name = "JSON"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The object."""
        try:
            document = json.loads(super().convert(value, param, ctx))
        except ValueError as error:
            self.fail(f"is not JSON: {error}", param, ctx)
        if not isinstance(document, dict):
            self.fail("is not a JSON object", param, ctx)
        return document


class Words(click.ParamType[Any]):
    """One of several words, or several between commas; the API checks them, the shell completes
    them."""

    name = "text"

    def __init__(self, words: Iterable[str]) -> None:
        self._words = tuple(words)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        """The words that complete the part after the last comma."""
        before, comma, last = incomplete.rpartition(",")
        return [
            click.shell_completion.CompletionItem(f"{before}{comma}{word}")
            for word in self._words
            if word.startswith(last)
        ]


class Moment(click.ParamType[Any]):
    """A time, or a duration before now, such as 30m, 1h or 2d."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The time as the API accepts it."""
        if not (ago := _AGO.fullmatch(str(value))):
            return value
        time = datetime.now(UTC) - timedelta(seconds=int(ago[1]) * _UNITS[ago[2]])
        return time.isoformat(timespec="milliseconds")


def option(name: str, field: Field, *, clears: bool) -> click.Option:
    """The option of a field; `clears` means that --clear sends null."""
    flag = f"--{name.replace('_', '-')}"
    several = field.kind in ("array", "object")
    flags = [flag]
    if several and flag.endswith("s") and not flag.endswith(("seconds", "series")):
        flags.insert(0, flag.removesuffix("s"))
    if field.kind == "boolean":
        flags = [f"{flag}/--no-{flag[2:]}"]
    return click.Option(
        [*flags, name],
        type=Moment() if name in ("since", "until") else _type(field),
        multiple=several,
        default=None,
        help=_help(name, field, several=several, clears=clears),
    )


def _type(field: Field) -> click.ParamType[Any]:
    match field.kind:
        case "object":
            return Pair(secret=field.secret)
        case "boolean":
            return click.BOOL
        case "integer":
            return click.INT
        case "number":
            return click.FLOAT
        case "string" if 0 < len(field.choices) <= _FEW:
            return click.Choice(field.choices)
    if field.choices:
        return Words(field.choices)
    return Content() if field.secret else click.STRING


def _help(name: str, field: Field, *, several: bool, clears: bool) -> str:
    notes = [
        "required" * field.required,
        field.default is not None and f"default: {_text(field.default)}",
        several and ("repeat it, or use commas" if field.commas else "may be repeated"),
        field.names and f"names: {', '.join(field.names)}",
        field.secret and "@FILE reads a file",
        name in ("since", "until") and "or how long ago: 30m, 1h, 2d",
        field.kind == "array" and field.choices and f"one of {', '.join(field.choices)}",
    ]
    said = "; ".join(note for note in notes if note)
    text = _NULL.sub(f"--clear {name}:" if clears else "left out:", field.description)
    text = text.removesuffix(".")
    if not _VALUE_FIRST.match(text):
        text = text[:1].upper() + text[1:]
    return f"{text}. [{said}]" if said else f"{text}."


def _text(default: Any) -> str:
    if isinstance(default, list):
        return ",".join(map(_text, default))
    if isinstance(default, dict):
        return " ".join(f"{name}={_text(one)}" for name, one in default.items())
    return str(default).lower() if isinstance(default, bool) else str(default)


def given(fields: Mapping[str, Field], values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the given options, as JSON has them."""
    return {
        name: _sent(field, values[name])
        for name, field in fields.items()
        if values.get(name) not in (None, ())
    }


def _sent(field: Field, value: Any) -> Any:
    match field.kind:
        case "object":
            limits = field.names and not field.secret
            return {name: _number(one) if limits else one for name, one in value}
        case "array":
            parts = [part for one in value for part in (one.split(",") if field.commas else [one])]
            return [_number(part) for part in parts] if field.numbers else parts
    return value


def _number(text: str) -> Any:
    """A number, or the text itself, which the API refuses."""
    try:
        return json.loads(text)
    except ValueError:
        return text
