-- Shared by the scripts that read budgets.

-- The known values of a budget, 0 if unknown; `counted` if the remaining requests are known.
local function budget_of(budget)
  local names = {'hold', 'reset_at', 'remaining', 'limit', 'window', 'line', 'again', 'deltas'}
  local known = {}
  local found = redis.call('HMGET', budget, unpack(names))
  for at, name in ipairs(names) do known[name] = tonumber(found[at] or 0) end
  known.counted = found[3] and true or false
  return known
end
