"""Every script declared in the house, and what becomes of a declaration."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from types import new_class

import msgspec
import pytest
from lupa.lua51 import LuaRuntime

import service.storage
from service.domain.errors import (
    CoursewireError,
    EpochEndedError,
    IntegrationExistsError,
    LeaseLostError,
    StaleRecordError,
    StaleSubscriptionsError,
)
from service.storage.redis.keys import Key
from service.storage.redis.scripts import Script, compiled, run, snake, source
from service.storage.redis.scripts.constants import CONSTANTS
from service.storage.redis.scripts.statuses import RefusedError, Status
from tests.fake_redis import FakeRedis

for module in walk_packages(service.storage.__path__, "service.storage."):
    import_module(module.name)
DECLARED = [one for one in Script.__subclasses__() if one.__module__.startswith("service.")]
BODIES = sorted(Path(service.storage.__path__[0]).rglob("*.lua"))

# What Redis gives to scripts, and what of Lua's own they need.
KNOWN = {
    "ARGV", "KEYS", "cmsgpack", "error", "ipairs", "math", "next", "pairs", "pcall", "redis",
    "string", "table", "tonumber", "unpack",
}  # fmt: skip
_GETGLOBAL, _SETGLOBAL = 5, 7


class Bytecode:
    """Reads what Lua 5.1 compiles a script to."""

    def __init__(self, dumped: bytes) -> None:
        self._dumped, self._at = dumped, 12

    def read(self, form: str) -> tuple:
        found = struct.unpack_from(f"<{form}", self._dumped, self._at)
        self._at += struct.calcsize(f"<{form}")
        return found

    def text(self) -> bytes:
        (length,) = self.read("Q")
        return self.read(f"{length}s")[0][:-1] if length else b""

    def constant(self) -> object:
        (kind,) = self.read("B")
        if kind == 4:
            return self.text().decode("latin-1")
        return self.read({0: "", 1: "B", 3: "d"}[kind])

    def globals(self) -> Iterator[str]:
        """The names that a function, and those within it, take from outside of the script."""
        self.text()
        self.read("ii4B")
        code = self.read(f"{self.read('i')[0]}I")
        constants = [self.constant() for _ in range(self.read("i")[0])]
        for instruction in code:
            if instruction & 0x3F in (_GETGLOBAL, _SETGLOBAL):
                yield constants[instruction >> 14]
        for _ in range(self.read("i")[0]):
            yield from self.globals()
        self.read(f"{self.read('i')[0]}i")
        for _ in range(self.read("i")[0]):
            self.text()
            self.read("ii")
        for _ in range(self.read("i")[0]):
            self.text()


def globals_of(text: str) -> set[str]:
    lua = LuaRuntime(encoding=None)
    dump = lua.eval(b"function(text) return string.dump(assert(loadstring(text))) end")
    return set(Bytecode(dump(text.encode())).globals())


@pytest.mark.parametrize("declared", DECLARED, ids=lambda one: one.__name__)
def test_a_script_uses_only_names_that_are_declared(declared):
    assert globals_of(compiled(declared).text) <= KNOWN


def test_the_look_for_undeclared_names_finds_them_wherever_they_are():
    text = "local a = 1 local function f() return function() b = a + c end end return f"
    assert globals_of(text) == {"b", "c"}


def test_each_script_is_declared_and_no_body_reads_keys_or_arguments_by_number():
    named = {snake(one.__name__) for one in DECLARED}
    assert named == {one.stem for one in BODIES if not one.name.startswith("_")}
    for body in BODIES:
        assert not re.search(r"\b(KEYS|ARGV)\b", body.read_text()), body.name


def test_a_script_uses_each_name_that_is_declared_for_it():
    for declared in DECLARED:
        body = source(declared)
        unused = {
            name for name in declared.__struct_fields__ if not re.search(rf"\b{name}\b", body)
        }
        assert not unused, (declared.__name__, unused)


def test_constants_have_the_value_they_have_here():
    lua = LuaRuntime(encoding=None)
    for name, value in CONSTANTS.items():
        declared = script(lua=f"return {name}")
        found = lua.execute(compiled(declared).text.encode())
        assert found == (value.encode() if isinstance(value, str) else value), name


# --- what becomes of a declaration ------------------------------------------------------------


def script(**declared):
    return new_class("One", (Script[None],), {}, lambda namespace: namespace.update(declared))


class Place(msgspec.Struct):
    key: Key
    name: str


class Pair(msgspec.Struct):
    hash: Key
    list: Key


class Inner(msgspec.Struct):
    content: bytes
    key: Key


class Row(msgspec.Struct):
    text: str
    content: bytes
    number: int | None = None
    inner: Inner | None = None


class Seen(msgspec.Struct, kw_only=True):
    keys: list[str]
    text: str
    number: int
    half: int
    flag: bool
    content: bytes
    maybe: str | None
    maybe_content: bytes | None
    shown: list[bytes]


class Everything(Script[Seen]):
    one: Key
    pair: Pair
    text: str
    number: int
    real: float
    flag: bool
    content: bytes
    maybe: str | None = None
    maybe_content: bytes | None = None
    others: Sequence[Key] = ()
    places: Sequence[Place] = ()
    rows: Sequence[Row] = ()
    inner: Inner | None = None
    counts: Mapping[str, int] = {}
    constant: Key = Key("k:constant")
    lua = """
    local shown = {}
    for _, key in ipairs(others) do shown[#shown + 1] = key end
    for _, place in ipairs(places) do shown[#shown + 1] = place.key .. '=' .. place.name end
    for _, row in ipairs(rows) do
      shown[#shown + 1] = row.text .. row.content .. (row.number or 'nil')
      if row.inner then shown[#shown + 1] = row.inner.key .. row.inner.content end
    end
    shown[#shown + 1] = inner.key .. inner.content
    for name, count in pairs(counts) do shown[#shown + 1] = name .. count end
    return seen {
      keys = {one, pair.hash, pair.list, constant}, text = text, number = number + 1,
      half = real * 2, flag = not flag, content = content, maybe = maybe,
      maybe_content = maybe_content, shown = shown,
    }
    """


ANY = bytes(range(256))


@pytest.fixture(params=["fake", "valkey"])
async def server(request, redis):
    """The fake Redis, and a real server."""
    async with FakeRedis() as fake:
        yield fake if request.param == "fake" else redis


async def test_a_script_finds_what_it_was_given_under_its_name(server):
    call = Everything(
        one=Key("k:1"),
        pair=Pair(Key("k:h"), Key("k:l")),
        text="ä",
        number=-(2**40),
        real=0.25,
        flag=False,
        content=ANY,
        others=[Key("k:a"), Key("k:b")],
        places=[Place(Key("k:p"), "x"), Place(Key("k:q"), "y" * 300)],
        rows=[Row("r", ANY, inner=Inner(b"i", Key("k:i"))), Row("s", b"", 70_000)],
        inner=Inner(ANY, Key("k:j")),
        counts={"c": 3},
    )
    seen = await run(server, call)
    assert seen == Seen(
        keys=["k:1", "k:h", "k:l", "k:constant"],
        text="ä",
        number=-(2**40) + 1,
        half=0,
        flag=True,
        content=ANY,
        maybe=None,
        maybe_content=None,
        shown=[
            b"k:a", b"k:b", b"k:p=x", b"k:q=" + b"y" * 300, b"r" + ANY + b"nil", b"k:ii",
            b"s70000", b"k:j" + ANY, b"c3",
        ],
    )  # fmt: skip
    keys, _ = compiled(Everything).arguments(call)
    assert keys == ["k:1", "k:h", "k:l", "k:constant", "k:a", "k:b", "k:p", "k:q", "k:i", "k:j"]


@pytest.mark.parametrize("number", [0, 127, 128, -1, -33, 2**16, -(2**31), 2**32, 2**53 - 1])
async def test_numbers_are_exact(server, number):
    assert await run(server, Echo(number=number)) == number


class Echo(Script[int]):
    number: int
    lua = "return number"


class Refuse(Script[None]):
    answer: str
    lua = "if answer ~= '' then return answer end"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Status.LEASE, LeaseLostError),
        (Status.PROGRESS, LeaseLostError),
        (Status.EPOCH, EpochEndedError),
        (Status.SUBSCRIPTIONS, StaleSubscriptionsError),
        (Status.STALE, StaleRecordError),
        (f"{Status.EXISTS} int_a", IntegrationExistsError),
        (Status.FULL, RefusedError),
    ],
)
async def test_a_refusal_is_an_error(answer, error):
    async with FakeRedis() as redis:
        with pytest.raises(error) as raised:
            await run(redis, Refuse(answer=answer))
        assert getattr(raised.value, "existing_id", "int_a") == "int_a"
        assert isinstance(raised.value, CoursewireError)
        assert await run(redis, Refuse(answer="")) is None


@pytest.mark.parametrize("hint", [Sequence[bytes], Mapping[str, bytes], list[Seen]])
def test_bytes_that_are_no_field_are_refused_where_they_are_declared(hint):
    declared = script(lua="return", __annotations__={"field": hint})
    with pytest.raises(TypeError, match=r"One\.field"):
        compiled(declared)


async def test_a_missing_name_is_refused():
    with pytest.raises(TypeError, match="number"):
        Echo()
