-- Shared by the scripts that sort by positions in the log.

-- number -> base 32, `length` characters
local function base32(number, length)
  local text = ''
  for _ = 1, length do
    local rest = number % 32
    text = string.sub(ALPHABET, rest + 1, rest + 1) .. text
    number = (number - rest) / 32
  end
  return text
end

-- The text that sorts positions in sorted sets.
local function sort_key(position)
  local ms, counter = string.match(position, '^(%d+)-(%d+)$')
  return base32(tonumber(ms), 10) .. base32(tonumber(counter), 4)
end
