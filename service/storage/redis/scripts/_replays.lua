-- Shared by the scripts that advance replays. A backfilled event has the position of its entry,
-- with BACKFILLED added to the counter.

-- The position of the event at an entry of the backfilled stream.
local function backfilled_position(id)
  local ms, counter = string.match(id, '^(%d+)%-(%d+)$')
  return ms .. '-' .. string.format('%.0f', tonumber(counter) + BACKFILLED)
end

-- Deletes an event of a backfill, which no other outbox contains.
local function forget_backfilled(backfilled, position)
  local ms, counter = string.match(position, '^(%d+)%-(%d+)$')
  if counter and tonumber(counter) >= BACKFILLED then
    redis.call('XDEL', backfilled, ms .. '-' .. string.format('%.0f', counter - BACKFILLED))
  end
end

-- Completes a replay if it has been fed and all its entries have ended.
local function complete_replay(key, totals, now)
  local facts = redis.call('HMGET', key, 'state', 'fed', 'queued', 'delivered', 'dead')
  if facts[1] ~= 'running' or facts[2] ~= '1' then return end
  if tonumber(facts[4] or 0) + tonumber(facts[5] or 0) >= tonumber(facts[3] or 0) then
    redis.call('HSET', key, 'state', 'completed', 'finished_at', now)
    redis.call('HINCRBY', totals, 'replays', -1)
  end
end
