-- Shared by the scripts that change what an integration's state follows from: how many
-- integrations are in which state is kept in the totals.

-- The state that people are shown; `state_of` in domain/integrations.py says the same.
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

-- Counts an integration no longer.
local function uncount_state(integration, totals)
  local counted = redis.call('HGET', integration, 'state')
  if counted then redis.call('HINCRBY', totals, 'state:' .. counted, -1) end
end

-- Counts an integration under the state that it is in by now; returns that.
local function count_state(integration, totals)
  local state = state_of(integration)
  if redis.call('HGET', integration, 'state') ~= state then
    uncount_state(integration, totals)
    redis.call('HINCRBY', totals, 'state:' .. state, 1)
    redis.call('HSET', integration, 'state', state)
  end
  return state
end
