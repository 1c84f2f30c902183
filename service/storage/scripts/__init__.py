"""Loads the Lua scripts; each states its KEYS, ARGV and result above its code."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1
from importlib.resources import files
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError

if TYPE_CHECKING:
    from redis.asyncio import Redis

_INCLUDE = "-- include "


class Script:
    """A script on one server.

    A server that does not know it, as after a restart or a failover, is sent its text, which it
    runs and remembers: one that forgets at any moment is served all the same.
    """

    def __init__(self, redis: Redis, text: str) -> None:
        self._redis = redis
        self._text = text
        self._digest = sha1(text.encode(), usedforsecurity=False).hexdigest()

    async def __call__(
        self,
        keys: Sequence[str | bytes] = (),
        args: Sequence[str | bytes | float] = (),
    ) -> Any:
        """What the script returns. Raises RedisError."""
        execute = self._redis.execute_command
        try:
            return await execute("EVALSHA", self._digest, len(keys), *keys, *args)  # type: ignore[no-untyped-call]  # redis-py's
        except NoScriptError:
            return await execute("EVAL", self._text, len(keys), *keys, *args)  # type: ignore[no-untyped-call]  # redis-py's


def load(redis: Redis, name: str) -> Script:
    """The script `name`.lua bound to `redis`."""
    return Script(redis, source(name))


def source(name: str) -> str:
    """The text of a script, with the files that its first lines include before it."""
    text = files(__name__).joinpath(f"{name}.lua").read_text(encoding="utf-8")
    included = takewhile(lambda line: line.startswith(_INCLUDE), text.splitlines())
    return "".join([*(source(line.removeprefix(_INCLUDE)) for line in included), text])
