"""Lua scripts, called by name: one declaration in Python defines the arguments and the reply.

    class TakeLease(Script[bool]):
        \"\"\"Begins work on something claimed.\"\"\"

        claimed: Key
        lease: Fence
        claim: int

    taken = await run(redis, TakeLease(claimed=..., lease=..., claim=...))

The body is in `take_lease.lua`, beside the module that declares it. It uses the fields by their
names: a preamble that is generated from the declaration binds them. The body never reads `KEYS` or
`ARGV`.

| a field of type | is in Lua |
|---|---|
| `Key` | a key, passed among `KEYS` |
| `bytes` | a string, passed as an argument of its own |
| a struct | a table with the struct's fields |
| a `Sequence` of keys or of structs | an array |
| any other | its msgpack value: text, number, boolean, array, table |

None is nil, and so are empty `bytes` if they are optional. Bytes are not packed with the
other values, because msgpack in Redis does not know them and large ones are not to be copied.

A script returns what `Script[...]` names. It builds a struct by the struct's name in Lua: `return
standing {resumed = ..., version = ...}`. A script that refuses to do its work returns a `Status`,
which `run` raises as an error. Statuses, and the constants of `constants.py`, are in scope where a
body uses them. A body begins with the files of this package that it includes: `-- include _clock`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
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

from service.storage.redis.keys import Key
from service.storage.redis.scripts.constants import CONSTANTS
from service.storage.redis.scripts.statuses import raise_refusal

if TYPE_CHECKING:
    from redis.asyncio import Redis

R = TypeVar("R")
_INCLUDE = "-- include "
_CONSTANT = re.compile(r"\b[A-Z][A-Z0-9_]+\b")
_encode = msgspec.msgpack.encode


class _Declaration(msgspec.StructMeta):
    def __new__(
        mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **config: Any
    ) -> Any:
        return super().__new__(mcls, name, bases, namespace, frozen=True, kw_only=True, **config)


@dataclass_transform(kw_only_default=True)
class Script(msgspec.Struct, Generic[R], metaclass=_Declaration):
    """A call of a script that returns `R`; a subclass declares one script."""

    lua: ClassVar[str] = ""
    """The body, if it is not in a file."""


async def run(redis: Redis, call: Script[R]) -> R:
    """Runs a script and returns its reply.

    A server that does not know the script, for example after a restart, is sent its text. Raises
    RedisError, or the error of a refusal; then the script wrote nothing.
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


def source(declared: type[Script[Any]]) -> str:
    """The body of a script."""
    if declared.lua:
        return declared.lua
    return _read(declared.__module__.rpartition(".")[0], snake(declared.__name__))


def _read(package: str, name: str) -> str:
    return files(package).joinpath(f"{name}.lua").read_text(encoding="utf-8")


def included(text: str) -> str:
    """The text of the files that the first lines of a text include."""
    lines = takewhile(lambda line: line.startswith(_INCLUDE), text.splitlines())
    return "".join(_read(__name__, line.removeprefix(_INCLUDE)) for line in lines)


class Compiled:
    """Derived from a declaration: the script's text, and the arguments of a call."""

    def __init__(self, declared: type[Script[Any]]) -> None:
        layout = _Layout(declared)
        reply = get_args(declared.__orig_bases__[0])[0]  # type: ignore[attr-defined]  # of generics
        reply = NoneType if reply is None else reply
        body = source(declared)
        shared = included(body)
        used = {*_CONSTANT.findall(shared + body)} & {*CONSTANTS}
        self.text = "\n".join(
            (
                *(f"local {name} = {_literal(CONSTANTS[name])}" for name in sorted(used)),
                shared,
                *_constructors(reply),
                *layout.preamble(),
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
    """The positions of a struct's fields: its keys in KEYS, bytes in ARGV, and all other values in
    an array, which is packed into the last argument.

    The keys and bytes of the elements of lists follow those of the struct, element by element.
    """

    def __init__(self, declared: type[msgspec.Struct], array: str = "call", depth: int = 0) -> None:
        self._of = declared.__name__
        self._array = array
        self._depth = depth
        self._base = f"{{}}{depth} + " if depth else ""
        self._keys: list[str] = []
        self._blobs: list[str] = []
        self._values: list[str] = []
        self._lists: list[tuple[int, _Layout | None, bool]] = []
        self._loops: list[str] = []
        self.fields = [(name, self._bind(hint, name)) for name, hint in _fields(declared)]

    def _bind(self, hint: Any, path: str) -> str:
        """Adds a field; returns the Lua expression for it."""
        if hint is Key:
            self._keys.append(path)
            return f"KEYS[{self._base.format('key')}{len(self._keys)}]"
        if hint in (bytes, bytes | None):
            self._blobs.append(path)
            place = f"ARGV[{self._base.format('blob')}{len(self._blobs)}]"
            return place if hint is bytes else f"({place} ~= '' and {place} or nil)"
        if _is_struct(hint):
            return _table((name, self._bind(of, f"{path}.{name}")) for name, of in _fields(hint))
        self._values.append(path)
        place = f"{self._array}[{len(self._values)}]"
        element = _element(hint)
        if element is Key:
            self._lists.append((len(self._values) - 1, None, False))
            self._loops.append(
                f"local list = {{}} for i = 1, {place} do list[i] = KEYS[keys + i] end "
                f"keys = keys + {place} {place} = list"
            )
        elif _is_struct(element) and (_holds(element, Key) or _holds(element, bytes)):
            self._add_list(place, element, single=get_origin(hint) is not Sequence)
        elif _holds(hint, bytes):
            raise TypeError(f"{self._of}.{path}: bytes must be fields of structs")
        return place

    def _add_list(self, place: str, element: type[msgspec.Struct], *, single: bool) -> None:
        depth = self._depth + 1
        one = _Layout(element, f"one{depth}", depth)
        self._lists.append((len(self._values) - 1, one, single))
        fill = (
            f"local key{depth}, blob{depth} = keys, blobs "
            f"keys, blobs = keys + {len(one._keys)}, blobs + {len(one._blobs)} {one.loops()} "
        )
        table = _table(one.fields)
        self._loops.append(
            f"local one{depth} = {place} if one{depth} then {fill}{place} = {table} end"
            if single
            else f"local list{depth} = {place} for i{depth} = 1, #list{depth} do "
            f"local one{depth} = list{depth}[i{depth}] {fill}list{depth}[i{depth}] = {table} end"
        )

    def loops(self) -> str:
        """The Lua code that fills the lists."""
        return " ".join(f"do {loop} end" for loop in self._loops)

    def preamble(self) -> Iterator[str]:
        """The Lua code that prepares the expressions, and names them."""
        if self._values:
            yield f"local {self._array} = cmsgpack.unpack(ARGV[#ARGV])"
        if self._loops:
            yield f"local keys, blobs = {len(self._keys)}, {len(self._blobs)}"
            yield self.loops()
        yield from (f"local {name} = {expression}" for name, expression in self.fields)

    def arguments(self, call: Any) -> tuple[list[Key], list[bytes]]:
        """The keys and the other arguments."""
        keys: list[Key] = []
        blobs: list[bytes | None] = []
        values = self.pack(call, keys, blobs)
        arguments = [blob or b"" for blob in blobs]
        if self._values:
            arguments.append(_encode(values))
        return keys, arguments

    def pack(self, call: Any, keys: list[Key], blobs: list[bytes | None]) -> Sequence[Any]:
        """The values to pack; adds the others to `keys` and `blobs`."""
        if self._keys:
            keys += self._get_keys(call)
        if self._blobs:
            blobs += self._get_blobs(call)
        values = self._get_values(call)
        if not self._lists:
            return values
        packed = list(values)
        for index, element, single in self._lists:
            found = packed[index]
            if element is None:
                keys += found
                packed[index] = len(found)
            elif not single:
                packed[index] = [element.pack(one, keys, blobs) for one in found]
            elif found is not None:
                packed[index] = element.pack(found, keys, blobs)
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
    if not paths:
        return lambda _: ()
    get = attrgetter(*paths)
    return get if len(paths) > 1 else lambda value: (get(value),)


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
    """The converter from Redis's reply to a type."""
    if hint in _READERS:
        return _READERS[hint]
    if get_origin(hint) in (Union, UnionType):
        (read,) = [_reader(of) for of in get_args(hint) if of is not NoneType]
        return read if read is _as_found else lambda found: None if found is None else read(found)
    if get_origin(hint) is list:
        (read,) = map(_reader, get_args(hint))
        return read if read is _as_found else lambda found: [read(one) for one in found]
    if not _is_struct(hint):
        raise TypeError(f"no script can return {hint}")
    names = hint.__struct_fields__
    readers = enumerate([_reader(of) for _, of in _fields(hint)])
    converters = [(at, read) for at, read in readers if read is not _as_found]

    def read_struct(found: list[Any]) -> Any:
        for at, convert in converters:
            found[at] = convert(found[at])
        return hint(**dict(zip(names, found, strict=True)))

    return read_struct


def _as_found(found: Any) -> Any:
    return found


_READERS: dict[Any, Callable[[Any], Any]] = {
    NoneType: lambda _: None,
    bool: bool,
    int: int,
    str: bytes.decode,
    bytes: _as_found,
}


def _fields(declared: type[msgspec.Struct]) -> list[tuple[str, Any]]:
    hints = get_type_hints(declared)
    return [(name, hints[name]) for name in declared.__struct_fields__]


def _is_struct(hint: Any) -> TypeGuard[type[msgspec.Struct]]:
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)


def _holds(hint: Any, sought: Any) -> bool:
    inner = [of for _, of in _fields(hint)] if _is_struct(hint) else get_args(hint)
    return hint is sought or any(_holds(one, sought) for one in inner)


def _element(hint: Any) -> Any:
    """The type of a list's elements, or of an optional value."""
    if get_origin(hint) is Sequence:
        return get_args(hint)[0]
    others = [of for of in get_args(hint) if of is not NoneType]
    return others[0] if get_origin(hint) in (Union, UnionType) and len(others) == 1 else None


def _table(fields: Iterable[tuple[str, str]]) -> str:
    return "{" + ", ".join(f"{name} = {expression}" for name, expression in fields) + "}"


def _literal(value: str | bytes | int) -> str:
    """A constant as Lua writes it."""
    if isinstance(value, int):
        return str(value)
    plain = value if isinstance(value, bytes) else value.encode()
    return "'" + "".join(f"\\{byte:03d}" for byte in plain) + "'"


def snake(name: str) -> str:
    """The name of a class in Lua."""
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()
