-- Shared by the scripts that read keys of many subscriptions, whose names have a star in place
-- of the id.

-- Returns a function that names the key of a subscription.
local function naming(pattern)
  local before, after = string.match(pattern, '^(.-)%*(.*)$')
  return function(id) return before .. id .. after end
end
