"""Responses: typed structs that carry their examples."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, ClassVar, Self, get_args, get_type_hints

import msgspec
from msgspec import inspect

from service.api.fields.kinds import means
from service.domain.events.event import rfc3339

# RFC 3339 in UTC with milliseconds and Z, of epoch ms
Timestamp = Annotated[str, msgspec.Meta(extra={"moment": True})]


class View(msgspec.Struct, frozen=True, kw_only=True):
    """An object in responses. `tagged` ones are returned with their ETag."""

    example: ClassVar[dict[str, Any]]
    tagged: ClassVar[bool] = False

    @classmethod
    def show(cls, *records: object, **given: Any) -> Self:
        """The view with the `given` fields; the others come from the first record that has them."""
        values = given
        for name, index in _sources(cls, tuple(map(type, records))):
            if name not in given:
                values[name] = getattr(records[index], name)
        for name in _moments(cls):
            values[name] = moment(values[name])
        return cls(**values)


class Page(View, frozen=True, kw_only=True):
    """A page of a list."""

    items: Annotated[list[Any], means("the page")]
    next: Annotated[
        str | None, means("pass it as `after` to get the next page; null: this is the last page")
    ]

    @classmethod
    def of_one(cls) -> dict[str, Any]:
        """A page with one example as an example."""
        (item,) = get_args(get_type_hints(cls)["items"])
        return {"items": [item.example], "next": None}


def moment(milliseconds: int | None) -> str | None:
    """Epoch ms as responses show it."""
    return None if milliseconds is None else rfc3339(milliseconds)


@cache
def _sources(view: type[View], records: tuple[type, ...]) -> tuple[tuple[str, int], ...]:
    """The fields that records hold, and the first record that holds each."""
    return tuple(
        (name, next(index for index, record in enumerate(records) if hasattr(record, name)))
        for name in view.__struct_fields__
        if any(hasattr(record, name) for record in records)
    )


@cache
def _moments(view: type[View]) -> frozenset[str]:
    """The fields that are times."""
    fields = inspect.type_info(view).fields  # type: ignore[attr-defined] # it is a StructType
    return frozenset(field.name for field in fields if _is_moment(field.type))


def _is_moment(info: inspect.Type) -> bool:
    match info:
        case inspect.Metadata(type=inner, extra=extra):
            return bool(extra and extra.get("moment")) or _is_moment(inner)
        case inspect.UnionType(types=types):
            return any(_is_moment(one) for one in types)
    return False
