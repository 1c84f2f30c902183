-- Shared by the scripts that spend budgets or learn of them.

-- What is known of a budget, 0 where nothing is; `counted` if it is known what remains.
local function budget_of(budget)
  local names = {'hold', 'reset_at', 'remaining', 'limit', 'window', 'line', 'again', 'deltas'}
  local known = {}
  local found = redis.call('HMGET', budget, unpack(names))
  for at, name in ipairs(names) do known[name] = tonumber(found[at] or 0) end
  known.counted = found[3] and true or false
  return known
end
