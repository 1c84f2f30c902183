"""The results of checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

Level = Literal["ok", "warn", "fail"]
Found = Sequence[tuple[Level, str]]  # each with its remedy if it is not "ok"


class Finding(msgspec.Struct, frozen=True):
    """The result of one check; `said` contains the remedy if it is not well."""

    check: str
    level: Level
    said: str
