"""Whether output has colours."""

from __future__ import annotations

import os
from typing import TextIO


def wants_colour(out: TextIO) -> bool:
    """Whether `out` supports colours: a terminal, or FORCE_COLOR; NO_COLOR overrides both."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or out.isatty()
