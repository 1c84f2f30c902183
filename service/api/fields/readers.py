"""Reads the fields of requests by the annotations of structs, and reports all wrong fields at once.

A field's annotation decides everything: its type and the bounds in its `Meta` how it is read, its
description its meaning. `Meta(extra={...})` holds what a type cannot express: `read` is a reader of
its own, `unit` is reported with bounds, `repeats` allows a list to repeat items, and `commas`
splits texts into items. The JSON Schema follows from the same annotation.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple, TypeVar, cast

import msgspec
from msgspec import UNSET, UnsetType, inspect

from service.api.fields.refusals import MAX_ERRORS, FieldError, Refusal

MAX_NAME_LENGTH = 100  # characters of an unknown field's name that an error repeats

Json = dict[str, Any]


class Fields(msgspec.Struct, kw_only=True, frozen=True):
    """Fields that a request may send; omitted ones are UNSET or have their default."""

    # The view, whose additional fields are read-only; fields that can no longer be sent, and the
    # alternative; the record whose defaults apply to omitted fields; examples of the body, each
    # with its description.
    shown: ClassVar[type[msgspec.Struct] | None] = None
    fixed: ClassVar[Mapping[str, str]] = {}
    defaults: ClassVar[type[msgspec.Struct] | None] = None
    examples: ClassVar[Mapping[str, tuple[str, Json]]] = {}

    def check(self) -> Iterable[FieldError]:
        """Refuses valid values that contradict each other."""
        return ()


Read = TypeVar("Read", bound=Fields)
Sent = TypeVar("Sent")


class Reader(NamedTuple):
    """Converts a value or raises Refusal; `schema` documents the accepted values."""

    read: Callable[[Any], Any]
    schema: Json


class Field(NamedTuple):
    """One field of a struct."""

    attribute: str
    reader: Reader
    required: bool
    is_list: bool

    @property
    def meaning(self) -> str:
        """Its description."""
        return str(self.reader.schema.get("description", ""))


@lru_cache(maxsize=100)
def fields_of(of: type[msgspec.Struct]) -> Mapping[str, Field]:
    """The fields of a struct by their names in requests."""
    return {
        field.encode_name: Field(
            field.name, _reader(field.type), field.required, _is_list(field.type)
        )
        for field in inspect.type_info(of).fields  # type: ignore[attr-defined] # it is a StructType
    }


def read_fields(
    of: type[Read], sent: Mapping[str, Any], *, guess: bool = True
) -> tuple[Read, list[FieldError]]:
    """The struct that was read, and its errors.

    Wrong fields are UNSET. For an unknown field, a `guess` is the likely name.
    """
    fields = fields_of(of)
    values: dict[str, Any] = {}
    errors: list[FieldError] = []
    for name, value in sent.items():
        if len(errors) >= MAX_ERRORS:
            break
        field = fields.get(name)
        if field is None:
            errors.append(_stranger(of, fields, name[:MAX_NAME_LENGTH], guess=guess))
            continue
        try:
            values[field.attribute] = field.reader.read(value)
        except Refusal as refusal:
            errors += refusal.below(name)
            values[field.attribute] = UNSET
    for name, field in fields.items():
        if field.required and name not in sent:
            errors.append(FieldError(name, "is required", f"add it: {field.meaning}"))
            values[field.attribute] = UNSET
    found = of(**values)
    errors += found.check()
    return found, errors


def given(data: msgspec.Struct) -> dict[str, Any]:
    """The fields that were sent."""
    return {
        name: value
        for name in data.__struct_fields__
        if (value := getattr(data, name)) is not UNSET
    }


def or_none(value: Sent | UnsetType) -> Sent | None:
    """A value, None if it was omitted."""
    return None if value is UNSET else value


def _stranger(
    of: type[Fields], fields: Mapping[str, Field], name: str, *, guess: bool
) -> FieldError:
    """The error of a field that cannot be sent."""
    if name in of.fixed:
        return FieldError(name, "cannot be changed here", of.fixed[name])
    if of.shown is not None and name in of.shown.__struct_encode_fields__:
        return FieldError(name, "is read-only", "leave it out")
    known = (*fields, *of.fixed)
    near = difflib.get_close_matches(name, known, n=1) if guess else []
    remedy = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    return FieldError(name, "is not known", remedy)


# --- queries: texts, as often as a parameter was given -------------------------------------------


def read_query(of: type[Read], sent: Mapping[str, list[str]]) -> tuple[Read, list[FieldError]]:
    """The struct of a query string.

    A list may be repeated, or hold several values separated by commas; any other parameter occurs
    once.
    """
    fields = fields_of(of)
    values: dict[str, Any] = {}
    repeated: list[FieldError] = []
    for name, texts in sent.items():
        field = fields.get(name)
        values[name] = texts if field is not None and field.is_list else texts[0]
        if field is not None and not field.is_list and len(texts) > 1:
            repeated.append(FieldError(name, f"is given {len(texts)} times", "give it once"))
    found, errors = read_fields(of, values)
    names = {error.field for error in repeated}
    return found, [*repeated, *(error for error in errors if error.field not in names)]


# --- readers by type -----------------------------------------------------------------------------


def _is_list(info: inspect.Type) -> bool:
    while isinstance(info, inspect.Metadata):
        info = info.type
    return isinstance(info, inspect.VarTupleType)


def _reader(info: inspect.Type, extra: Json | None = None) -> Reader:
    said = extra or {}
    match info:
        case inspect.Metadata(type=inner, extra_json_schema=schema, extra=more):
            found = _reader(inner, {**said, **(more or {})})
            added = dict(schema or {})
            replaces = "type" in added or "oneOf" in added
            return Reader(found.read, added if replaces else {**found.schema, **added})
        case _ if "read" in said:
            return Reader(said["read"], _schema(info))
        case inspect.UnionType(types=types):
            (inner,) = (one for one in types if not isinstance(one, inspect.NoneType))
            return _nullable(_reader(inner))
        case inspect.BoolType():
            return Reader(_boolean, {"type": "boolean"})
        case inspect.IntType(ge=least, le=most):
            return whole_number(least or 0, most or 0, said.get("unit", ""))
        case inspect.FloatType(ge=low, le=high):
            return _number(low or 0, high or 0, said.get("unit", ""))
        case inspect.EnumType(cls=choices):
            return one_of(tuple(choices))
        case inspect.LiteralType(values=words):
            return one_of(tuple(str(word) for word in words))
        case inspect.VarTupleType(item_type=item, min_length=few, max_length=many):
            return _list_of(_reader(item), few or 0, many or 0, said)
        case inspect.StructType(cls=struct):
            return _object_of(cast("type[Fields]", struct))
    raise TypeError(f"there is no reader for {info}")


def _schema(info: inspect.Type) -> Json:
    """Reads a field that names its own reader."""
    match info:
        case inspect.StrType(min_length=few, max_length=many, pattern=pattern):
            bounds = {"minLength": few, "maxLength": many, "pattern": pattern}
            return {"type": "string", **{name: one for name, one in bounds.items() if one}}
        case inspect.IntType(ge=least, le=most):
            return {"type": "integer", "minimum": least, "maximum": most}
    return {}


def kind_of(value: Any) -> str:
    """The kind of a value, in words."""
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


def expect(value: Any, kind: type | tuple[type, ...], name: str) -> None:
    """Raises Refusal unless a value has the kind."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise Refusal(f"must be {name}, not {kind_of(value)}", f"send {name}")


def _nullable(reader: Reader) -> Reader:
    def read(value: Any) -> Any:
        return None if value is None else reader.read(value)

    return Reader(read, {"oneOf": [reader.schema, {"type": "null"}]})


def _boolean(value: Any) -> bool:
    expect(value, bool, "true or false")
    return bool(value)


def whole_number(least: float, most: float, unit: str = "") -> Reader:
    """A whole number from `least` to `most`."""
    expected = f"a whole number from {least} to {most}{unit and f' ({unit})'}"

    def read(value: Any) -> int:
        expect(value, (int, float), "a number")
        if isinstance(value, float) and not value.is_integer():
            raise Refusal(f"{value:g} is not a whole number", f"send {expected}")
        if not least <= value <= most:
            raise Refusal(f"{value} is out of range", f"send {expected}")
        return int(value)

    return Reader(read, {"type": "integer", "minimum": least, "maximum": most})


def _number(least: float, most: float, unit: str) -> Reader:
    def read(value: Any) -> float:
        expect(value, (int, float), "a number")
        if not least <= value <= most:
            raise Refusal(
                f"{value:g} is out of range", f"send a number from {least:g} to {most:g} ({unit})"
            )
        return float(value)

    return Reader(read, {"type": "number", "minimum": least, "maximum": most})


def one_of(choices: Iterable[str]) -> Reader:
    """One of several words; a word of an enumeration is read as its member."""
    members = {str(choice): choice for choice in choices}
    known = tuple(members)

    def read(value: Any) -> str:
        expect(value, str, "text")
        if value not in known:
            near = difflib.get_close_matches(value[:100], known, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"send one of {', '.join(known)}"
            raise Refusal(f"{value[:100]!r} is not known", remedy)
        return members[value]

    return Reader(read, {"type": "string", "enum": list(known)})


def _list_of(item: Reader, least: int, most: int, said: Json) -> Reader:
    distinct = not said.get("repeats", False)

    def read(value: Any) -> tuple[Any, ...]:
        expect(value, list, "a list")
        if said.get("commas"):
            value = [part for text in value for part in text.split(",")]
        if not least <= len(value) <= most:
            raise Refusal(f"has {len(value)} items", f"send {least} to {most}")
        parsed: list[Any] = []
        found: list[FieldError] = []
        for index, element in enumerate(value):
            path = f"[{index}]"
            try:
                one = item.read(element)
            except Refusal as refusal:
                found += refusal.below(path)
                continue
            if distinct and one in parsed:
                found.append(FieldError(path, "repeats an earlier item", "leave it out"))
            parsed.append(one)
        if found:
            raise Refusal.of(found)
        return tuple(parsed)

    schema: Json = {"type": "array", "items": item.schema, "minItems": least, "maxItems": most}
    return Reader(read, {**schema, "uniqueItems": True} if distinct else schema)


def _object_of(of: type[Fields]) -> Reader:
    def read(value: Any) -> Any:
        expect(value, dict, "an object")
        parsed, found = read_fields(of, value, guess=False)
        if found:
            raise Refusal.of(
                [FieldError(f".{one.field}", one.message, one.remedy) for one in found]
            )
        return parsed

    return Reader(read, object_schema(of))


def object_schema(of: type[msgspec.Struct]) -> Json:
    """The JSON Schema of an object with these fields and no others."""
    fields = fields_of(of)
    required = [name for name, field in fields.items() if field.required]
    schema: Json = {
        "type": "object",
        "properties": {
            name: {**field.reader.schema, **_default(of, field.attribute)}
            for name, field in fields.items()
        },
        "additionalProperties": False,
    }
    return {**schema, "required": required} if required else schema


def _default(of: type[msgspec.Struct], attribute: str) -> Json:
    """The default of a field, its own or its factory's."""
    for struct in (of, getattr(of, "defaults", None)):
        for one in () if struct is None else msgspec.structs.fields(struct):
            if one.name == attribute and one.default not in (UNSET, msgspec.NODEFAULT, None, ()):
                return {"default": msgspec.to_builtins(one.default)}
    return {}
