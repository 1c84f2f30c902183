"""The operations of the API as its OpenAPI document describes them; `make docs` writes the file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

FILE = Path(__file__).with_name("operations.json")


class Field(msgspec.Struct, frozen=True, omit_defaults=True):
    """A query parameter, or a field of a body."""

    kind: str  # string, integer, number, boolean, array or object
    description: str
    required: bool = False
    nullable: bool = False
    secret: bool = False  # no response returns it
    default: Any = None
    choices: tuple[str, ...] = ()  # of a string, or of the items of an array
    commas: bool = False  # whether no item of an array can hold a comma
    numbers: bool = False  # whether the items of an array are numbers
    names: tuple[str, ...] = ()  # the fields of an object without other fields


class Operation(msgspec.Struct, frozen=True, omit_defaults=True):
    """One method of one path."""

    method: str
    path: str
    summary: str
    description: str = ""
    condition: str = ""  # whether If-Match is `optional` or `required`
    query: dict[str, Field] = {}
    body: dict[str, Field] = {}

    @property
    def arguments(self) -> list[str]:
        """The names of the parameters in the path."""
        return re.findall(r"{(\w+)}", self.path)

    def path_of(self, arguments: Mapping[str, Any]) -> str:
        """The path with its arguments."""
        return self.path.format_map(
            {name: quote(arguments[name], safe="") for name in self.arguments}
        )

    @property
    def text(self) -> str:
        """The description without its table, which is too wide for a terminal."""
        return self.description.partition("\n\n|")[0]

    @property
    def is_paged(self) -> bool:
        """Whether its response is a page of a list."""
        return {"limit", "after"} <= set(self.query)


@cache
def operations() -> dict[str, Operation]:
    """Every operation under `/v1` by its id."""
    return msgspec.json.decode(FILE.read_bytes(), type=dict[str, Operation])
