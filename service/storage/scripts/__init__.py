"""Loads the Lua scripts; each states its KEYS, ARGV and result above its code."""

from __future__ import annotations

from importlib.resources import files
from itertools import takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.commands.core import AsyncScript

_INCLUDE = "-- include "


def load(redis: Redis, name: str) -> AsyncScript:
    """The script `name`.lua bound to `redis`; a lost script cache is refilled by itself."""
    return redis.register_script(source(name))


def source(name: str) -> str:
    """The text of a script, with the files that its first lines include before it."""
    text = files(__name__).joinpath(f"{name}.lua").read_text(encoding="utf-8")
    included = takewhile(lambda line: line.startswith(_INCLUDE), text.splitlines())
    return "".join([*(source(line.removeprefix(_INCLUDE)) for line in included), text])
