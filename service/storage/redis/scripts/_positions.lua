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

local last_ms, last_text -- one script appends all events in the same ms

-- The text that sorts positions in sorted sets.
local function sort_key(position)
  local ms, counter = string.match(position, '^(%d+)-(%d+)$')
  if ms ~= last_ms then last_ms, last_text = ms, base32(tonumber(ms), 10) end
  return last_text .. base32(tonumber(counter), 4)
end
