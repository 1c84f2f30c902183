-- Shared by the scripts that read keys of many subscriptions, which are passed with a star in the
-- place of the id.

-- A function that names the key of a subscription.
local function naming(pattern)
  local before, after = string.match(pattern, '^(.-)%*(.*)$')
  return function(id) return before .. id .. after end
end
