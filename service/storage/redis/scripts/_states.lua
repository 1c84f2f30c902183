-- Shared by the scripts that change an integration's state: the totals contain the
-- number of integrations in each state.

-- The state in responses; `state_of` in domain/polling/integration.py computes the same.
local function state_from(paused, attention, held, baselined)
  if paused == '1' then return 'paused' end
  if attention == '1' then return 'error' end
  if tonumber(held or '0') ~= 0 then return 'review' end
  if baselined ~= '1' then return 'pending' end
  return 'active'
end

local function state_of(integration)
  local known = redis.call('HMGET', integration, 'paused', 'attention', 'held', 'baselined')
  return state_from(unpack(known))
end

-- Removes an integration from the counts.
local function uncount_state(integration, totals)
  local counted = redis.call('HGET', integration, 'state')
  if counted then redis.call('HINCRBY', totals, 'state:' .. counted, -1) end
end

-- Counts an integration under its present state; returns the state.
local function count_state(integration, totals)
  local state = state_of(integration)
  if redis.call('HGET', integration, 'state') ~= state then
    uncount_state(integration, totals)
    redis.call('HINCRBY', totals, 'state:' .. state, 1)
    redis.call('HSET', integration, 'state', state)
  end
  return state
end
