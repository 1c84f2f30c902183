-- Shared by the scripts that move replays on.

-- Completes a replay if it has been fed and all its entries have ended.
local function complete_replay(key, totals, now)
  local facts = redis.call('HMGET', key, 'state', 'fed', 'queued', 'delivered', 'dead')
  if facts[1] ~= 'running' or facts[2] ~= '1' then return end
  if tonumber(facts[4] or 0) + tonumber(facts[5] or 0) >= tonumber(facts[3] or 0) then
    redis.call('HSET', key, 'state', 'completed', 'finished_at', string.format('%.0f', now))
    redis.call('HINCRBY', totals, 'replays', -1)
  end
end
