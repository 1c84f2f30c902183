"""Reads a request's fields by a table of them, and reports every wrong one at once."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any

import msgspec
from litestar.openapi.spec import Schema

from service.domain.errors import CoursewireError, TargetRefusedError

MAX_ERRORS = 100  # in one answer; nobody reads more
MAX_NAME_LENGTH = 100  # characters of an unknown field's name that are repeated


class FieldError(msgspec.Struct, frozen=True):
    """What is wrong with one field, and what to do about it."""

    field: Annotated[str, msgspec.Meta(description="its name, and the path inside it")]
    message: Annotated[str, msgspec.Meta(description="what is wrong")]
    remedy: Annotated[str, msgspec.Meta(description="what to do about it")]


class InvalidRequestError(CoursewireError):
    """The request has fields that cannot be accepted."""

    def __init__(self, errors: Collection[FieldError]) -> None:
        names = ", ".join(dict.fromkeys(error.field for error in errors))
        super().__init__(f"these fields cannot be accepted: {names}")
        self.errors = tuple(errors)


class Refusal(ValueError):  # noqa: N818 - it is raised by parsers and never leaves this package
    """What a parser has against a value: of each part at fault, the path below the field, what
    is wrong and what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.found = [FieldError("", message, remedy)]

    @classmethod
    def of(cls, found: list[FieldError]) -> Refusal:
        """A refusal for several reasons."""
        refusal = cls(found[0].message, found[0].remedy)
        refusal.found = found
        return refusal

    def below(self, path: str) -> list[FieldError]:
        """The reasons as seen from one level up."""
        return [FieldError(path + one.field, one.message, one.remedy) for one in self.found]


class Parser(msgspec.Struct, frozen=True):
    """Turns what was sent into a value, or raises Refusal; `schema` documents what it takes."""

    parse: Callable[[Any], Any]
    schema: Schema


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One field of a resource.

    `required` holds on creation. One that is `fixed` cannot be sent afterwards; the text says
    what to do instead. `default` is what a creation without it means, for the documentation
    alone.
    """

    parser: Parser
    meaning: str
    required: bool = False
    fixed: str = ""
    write_only: bool = False
    default: Any = None


Table = Mapping[str, Field]


class Form:
    """The fields of one request: `values` holds those that were sent and are acceptable."""

    def __init__(
        self,
        sent: Mapping[str, Any],
        table: Table,
        *,
        required: Collection[str] = (),
        editing: bool = False,
        read_only: Collection[str] = (),
    ) -> None:
        self.values: dict[str, Any] = {}
        self._sent = sent
        self._errors: list[FieldError] = []
        for name, value in sent.items():
            if len(self._errors) >= MAX_ERRORS:
                break
            field = table.get(name)
            if field is None:
                self._unknown(name, table, read_only)
            elif field.fixed and editing:
                self.refuse(name, "cannot be changed here", field.fixed)
            else:
                self._parse(name, field, value)
        for name in required:
            if name not in sent:
                self.refuse(name, "is required", f"add it: {table[name].meaning}")

    def sent(self, name: str) -> bool:
        """Whether the request names the field, acceptable or not."""
        return name in self._sent

    def refuse(self, field: str, message: str, remedy: str) -> None:
        """Notes that a field cannot be accepted."""
        self._errors.append(FieldError(field, message, remedy))

    def check_target(self, name: str, check: Callable[[str], None]) -> None:
        """Notes what `check` has against the URL in a field, if there is one."""
        if name not in self.values:
            return
        try:
            check(self.values[name])
        except TargetRefusedError as refusal:
            message, _, remedy = str(refusal).partition("; ")
            self.refuse(name, message, remedy or "give the URL of a server reached over HTTP")

    def accept(self) -> dict[str, Any]:
        """The values. Raises InvalidRequestError if any field was refused."""
        if self._errors:
            raise InvalidRequestError(self._errors)
        return self.values

    def _parse(self, name: str, field: Field, value: Any) -> None:
        try:
            self.values[name] = field.parser.parse(value)
        except Refusal as refusal:
            self._errors += refusal.below(name)

    def _unknown(self, sent_name: str, table: Table, read_only: Collection[str]) -> None:
        name = sent_name[:MAX_NAME_LENGTH]
        if name in read_only:
            self.refuse(name, "is read-only", "leave it out")
            return
        near = difflib.get_close_matches(name, table, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"known are {', '.join(table)}"
        self.refuse(name, "is not known", remedy)
