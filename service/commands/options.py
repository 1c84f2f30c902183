"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click

Option = Callable[[Any], Any]

URL: Final[Option] = click.option(
    "--url",
    metavar="URL",
    help="Where the API is, if not at COURSEWIRE_HOST and COURSEWIRE_PORT.",
)
JSON: Final[Option] = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
HOST: Final[Option] = click.option(
    "--host", default="127.0.0.1", show_default=True, help="Where to listen."
)


def port(default: int) -> Option:
    """Where a command listens."""
    return click.option(
        "--port",
        default=default,
        show_default=True,
        type=click.IntRange(0, 65535),
        help="0 picks a free one and prints it.",
    )
