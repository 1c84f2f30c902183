"""Lua scripts, called by name: one declaration in Python says what each takes and returns.

    class TakeLease(Script[bool]):
        \"\"\"Begins work on something claimed.\"\"\"

        claimed: Key
        lease: Fence
        claim: int

    taken = await run(redis, TakeLease(claimed=..., lease=..., claim=...))

The body is in `take_lease.lua`. It uses the fields by their names: a preamble that is made from the
declaration binds them. The body never reads `KEYS` or `ARGV`.

| a field of type | is in Lua |
|---|---|
| `Key` | a key, passed among `KEYS` |
| `bytes` | a string |
| a struct | a table with the struct's fields |
| `Sequence[Key]`, `Sequence` of structs with keys | an array |
| any other | what msgpack makes of it: text, number, boolean, array, table, nil |

An optional `bytes` that is empty or None is nil. msgpack in Redis does not know bytes, so inside of
arrays and tables they are `Binary`.

A script returns what `Script[...]` names. It builds a struct by the struct's name in Lua:
`return standing {resumed = ..., version = ...}`. A script that refuses to do its work returns a
`Status`, which `run` raises as an error. Statuses, and the constants of `constants.py`, are in
scope where a body uses them. A body begins with the files that it includes: `-- include _clock`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from functools import cache, cached_property
from hashlib import sha1
from importlib.resources import files
from itertools import takewhile
from operator import attrgetter
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    TypeGuard,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec
from redis.exceptions import NoScriptError

from service.storage.keys import Key
from service.storage.scripts.constants import CONSTANTS
from service.storage.scripts.statuses import raise_refusal

if TYPE_CHECKING:
    from redis.asyncio import Redis

R = TypeVar("R")
Binary = msgspec.Raw
_INCLUDE = "-- include "
_CONSTANT = re.compile(r"\b[A-Z][A-Z0-9_]+\b")
_encode = msgspec.msgpack.encode


def binary(value: bytes) -> Binary:
    """Bytes as a msgpack string, whatever they are: Redis reads that type alone."""
    return msgspec.Raw(b"\xdb" + struct.pack(">I", len(value)) + value)


class _Declaration(msgspec.StructMeta):
    def __new__(
        mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **config: Any
    ) -> Any:
        return super().__new__(mcls, name, bases, namespace, frozen=True, kw_only=True, **config)


@dataclass_transform(kw_only_default=True)
class Script(msgspec.Struct, Generic[R], metaclass=_Declaration):
    """A call of a script that returns `R`; a subclass declares one script."""

    lua: ClassVar[str] = ""
    """The body, where it is not in a file."""


async def run(redis: Redis, call: Script[R]) -> R:
    """Runs a script and returns what it returns.

    A server that does not know the script, for example after a restart, is sent its text. Raises
    RedisError, or the error that a refusal stands for; then the script wrote nothing.
    """
    script = compiled(type(call))
    keys, arguments = script.arguments(call)
    execute = redis.execute_command
    try:
        answer = await execute("EVALSHA", script.digest, len(keys), *keys, *arguments)  # type: ignore[no-untyped-call]  # redis-py's
    except NoScriptError:
        answer = await execute("EVAL", script.text, len(keys), *keys, *arguments)  # type: ignore[no-untyped-call]  # redis-py's
    if type(answer) is bytes:
        raise_refusal(answer)
    result: R = script.read(answer)
    return result


def source(name: str) -> str:
    """The text of a file."""
    return files(__name__).joinpath(f"{name}.lua").read_text(encoding="utf-8")


def included(text: str) -> str:
    """The text of the files that the first lines of a text include."""
    lines = takewhile(lambda line: line.startswith(_INCLUDE), text.splitlines())
    return "".join(source(line.removeprefix(_INCLUDE)) for line in lines)


class Compiled:
    """What follows from a declaration: the script's text, and how a call is passed to it."""

    def __init__(self, declared: type[Script[Any]]) -> None:
        layout = _Layout(declared, key="", value="call")
        bound = [(name, layout.bind(hint, name)) for name, hint in _fields(declared)]
        reply = get_args(declared.__orig_bases__[0])[0]  # type: ignore[attr-defined]  # of generics
        reply = NoneType if reply is None else reply
        body = declared.lua or source(snake(declared.__name__))
        shared = included(body)
        used = {*_CONSTANT.findall(shared + body)} & {*CONSTANTS}
        self.text = "\n".join(
            (
                *(f"local {name} = {_literal(CONSTANTS[name])}" for name in sorted(used)),
                shared,
                *_constructors(reply),
                *layout.preamble(),
                *(f"local {name} = {expression}" for name, expression in bound),
                body,
            )
        )
        self.digest = sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        self.read = _reader(reply)
        self._layout = layout

    def arguments(self, call: Script[Any]) -> tuple[Sequence[Key], Sequence[bytes]]:
        """KEYS and ARGV of a call."""
        return self._layout.arguments(call)


compiled = cache(Compiled)


class _Layout:
    """Where the fields of a struct are: its keys in KEYS, bytes in ARGV, and all other values
    together in one argument behind them, packed.

    `key` precedes the number of a key in Lua, `value` is the array of the other values.
    """

    def __init__(self, declared: type[msgspec.Struct], *, key: str, value: str) -> None:
        self._of = declared.__name__
        self._key = key
        self._value = value
        self._keys: list[str] = []
        self._blobs: list[str] = []
        self._values: list[str] = []
        self._lists: list[tuple[int, _Layout | None]] = []
        self._loops: list[str] = []

    def bind(self, hint: Any, path: str) -> str:
        """Adds a field; returns the Lua expression that it is bound to."""
        if hint is Key:
            self._keys.append(path)
            return f"KEYS[{self._key}{len(self._keys)}]"
        if hint in (bytes, bytes | None):
            self._blobs.append(path)
            place = f"ARGV[{len(self._blobs)}]"
            return place if hint is bytes else f"({place} ~= '' and {place} or nil)"
        if _is_struct(hint):
            inner = (f"{name} = {self.bind(of, f'{path}.{name}')}" for name, of in _fields(hint))
            return f"{{{', '.join(inner)}}}"
        self._values.append(path)
        place = f"{self._value}[{len(self._values)}]"
        element = get_args(hint)[0] if get_origin(hint) is Sequence else None
        if element is Key:
            self._lists.append((len(self._values) - 1, None))
            self._loops.append(
                f"local list = {{}} for i = 1, {place} do list[i] = KEYS[at + i] end "
                f"at = at + {place} {place} = list"
            )
        elif _is_struct(element) and _holds(element, Key):
            one = _Layout(element, key="at + ", value="one")
            bound = [f"one.{name} = {one.bind(of, name)}" for name, of in _fields(element)]
            if one._lists or one._blobs:
                raise TypeError(f"{self._of}.{path}: a list of structs with keys holds no other")
            self._lists.append((len(self._values) - 1, one))
            self._loops.append(
                f"for _, one in ipairs({place}) do {' '.join(bound)} at = at + {len(one._keys)} end"
            )
        elif _holds(hint, bytes):
            raise TypeError(f"{self._of}.{path}: bytes inside of a value must be Binary")
        return place

    def preamble(self) -> Iterator[str]:
        """The Lua that makes the bound expressions valid."""
        if self._values:
            yield f"local {self._value} = cmsgpack.unpack(ARGV[{len(self._blobs) + 1}])"
        if self._loops:
            yield f"local at = {len(self._keys)}"
        yield from (f"do {loop} end" for loop in self._loops)

    def arguments(self, call: Any) -> tuple[list[Key], list[bytes]]:
        """The keys and the other arguments."""
        keys: list[Key] = []
        values = self.pack(call, keys)
        arguments = [blob or b"" for blob in self._get_blobs(call)]
        if self._values:
            arguments.append(_encode(values))
        return keys, arguments

    def pack(self, call: Any, keys: list[Key]) -> Sequence[Any]:
        """The values to be packed; adds the keys to `keys`."""
        keys += self._get_keys(call)
        values = self._get_values(call)
        if not self._lists:
            return values
        packed = list(values)
        for index, element in self._lists:
            ones = packed[index]
            if element is None:
                keys += ones
                packed[index] = len(ones)
            else:
                packed[index] = [element.pack(one, keys) for one in ones]
        return packed

    @cached_property
    def _get_keys(self) -> Callable[[Any], Sequence[Key]]:
        return _getter(self._keys)

    @cached_property
    def _get_blobs(self) -> Callable[[Any], Sequence[bytes | None]]:
        return _getter(self._blobs)

    @cached_property
    def _get_values(self) -> Callable[[Any], Sequence[Any]]:
        return _getter(self._values)


def _getter(paths: Sequence[str]) -> Callable[[Any], Any]:
    """Gets the attributes at some paths, always as a sequence."""
    if len(paths) > 1:
        return attrgetter(*paths)
    return lambda value: [attrgetter(path)(value) for path in paths]


def _constructors(hint: Any) -> Iterator[str]:
    """A Lua function for each struct in a reply. Without `false` a nil would end the reply."""
    for inner in get_args(hint):
        yield from _constructors(inner)
    if not _is_struct(hint):
        return
    parts = []
    for name, of in _fields(hint):
        yield from _constructors(of)
        parts.append(f"one.{name} and 1 or 0" if of is bool else f"one.{name} or false")
    yield f"local function {snake(hint.__name__)}(one) return {{{', '.join(parts)}}} end"


def _reader(hint: Any) -> Callable[[Any], Any]:
    """What makes a value of a type out of what Redis answers."""
    if hint in _READERS:
        return _READERS[hint]
    if get_origin(hint) in (Union, UnionType):
        (read,) = [_reader(of) for of in get_args(hint) if of is not NoneType]
        return lambda found: None if found is None else read(found)
    if get_origin(hint) is list:
        (read,) = map(_reader, get_args(hint))
        return lambda found: [read(one) for one in found]
    if not _is_struct(hint):
        raise TypeError(f"no script can return {hint}")
    fields = [(name, _reader(of)) for name, of in _fields(hint)]
    return lambda found: hint(
        **{name: read(one) for (name, read), one in zip(fields, found, strict=True)}
    )


_READERS: dict[Any, Callable[[Any], Any]] = {
    NoneType: lambda _: None,
    bool: bool,
    int: int,
    str: bytes.decode,
    bytes: lambda found: found,
}


def _fields(declared: type[msgspec.Struct]) -> list[tuple[str, Any]]:
    hints = get_type_hints(declared)
    return [(name, hints[name]) for name in declared.__struct_fields__]


def _is_struct(hint: Any) -> TypeGuard[type[msgspec.Struct]]:
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)


def _holds(hint: Any, sought: Any) -> bool:
    inner = [of for _, of in _fields(hint)] if _is_struct(hint) else get_args(hint)
    return hint is sought or any(_holds(one, sought) for one in inner)


def _literal(value: str | bytes | int) -> str:
    """A constant as Lua writes it."""
    if isinstance(value, int):
        return str(value)
    plain = value if isinstance(value, bytes) else value.encode()
    return "'" + "".join(f"\\{byte:03d}" for byte in plain) + "'"


def snake(name: str) -> str:
    """What a class is called in Lua."""
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()
