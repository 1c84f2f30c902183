"""What an examination finds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

Level = Literal["ok", "warn", "fail"]
Found = Sequence[tuple[Level, str]]  # each with what to do where it is not "ok"


class Finding(msgspec.Struct, frozen=True):
    """What one check found; `said` tells what to do where it is not well."""

    check: str
    level: Level
    said: str
