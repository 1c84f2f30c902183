"""A fake Redis whose Lua knows cmsgpack, as the real one's does."""

from __future__ import annotations

from typing import ClassVar

from fakeredis import FakeAsyncRedis

_CMSGPACK = """
local cmsgpack = {}
do
  local text, at
  local function number(bytes)
    local value = 0
    for _ = 1, bytes do
      value, at = value * 256 + string.byte(text, at), at + 1
    end
    return value
  end
  local function signed(bytes)
    local value = number(bytes)
    return value < 256 ^ bytes / 2 and value or value - 256 ^ bytes
  end
  local function characters(length)
    at = at + length
    return string.sub(text, at - length, at - 1)
  end
  local function float()
    local high, low = number(4), number(4)
    local sign = high >= 2 ^ 31 and -1 or 1
    local exponent = math.floor(high / 2 ^ 20) % 2 ^ 11
    local fraction = (high % 2 ^ 20) * 2 ^ 32 + low
    if exponent == 0 then return sign * fraction * 2 ^ -1074 end
    return sign * (1 + fraction * 2 ^ -52) * 2 ^ (exponent - 1023)
  end
  local value
  local function array(length)
    local all = {}
    for index = 1, length do all[index] = value() end
    return all
  end
  local function map(length)
    local all = {}
    for _ = 1, length do
      local name = value()
      all[name] = value()
    end
    return all
  end
  value = function()
    local kind = number(1)
    if kind < 0x80 then return kind end
    if kind < 0x90 then return map(kind - 0x80) end
    if kind < 0xa0 then return array(kind - 0x90) end
    if kind < 0xc0 then return characters(kind - 0xa0) end
    if kind == 0xc0 then return nil end
    if kind == 0xc2 then return false end
    if kind == 0xc3 then return true end
    if kind == 0xcb then return float() end
    if kind >= 0xcc and kind <= 0xcf then return number(2 ^ (kind - 0xcc)) end
    if kind >= 0xd0 and kind <= 0xd3 then return signed(2 ^ (kind - 0xd0)) end
    if kind >= 0xd9 and kind <= 0xdb then return characters(number(2 ^ (kind - 0xd9))) end
    if kind == 0xdc or kind == 0xdd then return array(number(2 ^ (kind - 0xdb))) end
    if kind == 0xde or kind == 0xdf then return map(number(2 ^ (kind - 0xdd))) end
    if kind >= 0xe0 then return kind - 256 end
    error('Bad data format in input.')
  end
  cmsgpack.unpack = function(packed)
    text, at = packed, 1
    return value()
  end
end
"""


class FakeRedis(FakeAsyncRedis):
    """Hands each script cmsgpack, and says of itself what a test wants it to."""

    told: ClassVar = {"run_id": "r" * 40}  # what INFO tells, which fakeredis does not have

    async def info(self, *_sections):
        return self.told

    async def execute_command(self, name, *args, **options):
        if name == "EVAL":
            args = (_CMSGPACK + args[0], *args[1:])
        return await super().execute_command(name, *args, **options)
