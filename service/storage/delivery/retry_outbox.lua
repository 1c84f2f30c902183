-- include _clock
-- include _entries
-- include _retries
if (redis.call('HGET', outbox_state, 'breaker') or '') ~= as_read then return STALE end

-- The order keys of one pending event on a queue, by the places of its entries.
local heads, pending = {}, false
local function look_up(queue, place)
  local entry = redis.call('XRANGE', queue.stream, place, place)[1]
  if not entry then return end
  pending = true
  local key = fields_of(entry).k
  if redis.call('ZSCORE', queue.retries, key) then heads[#heads + 1] = {queue.retries, key} end
end
if one then
  look_up(live, one.position)
  local span = {'[' .. one.sort_key, '(' .. one.sort_key .. '\127'}
  for _, member in ipairs(redis.call('ZRANGE', replayed_order, span[1], span[2], 'BYLEX')) do
    look_up(replayed, string.sub(member, #one.sort_key + 1))
  end
  if not pending then return GONE end
end

-- A removal comes first, so that it runs even when Redis is at its memory limit.
redis.call('HDEL', outbox_state, 'resumed')
redis.call('HSET', outbox_state, 'resumed', resumed)
if breaker then redis.call('HSET', outbox_state, 'breaker', breaker) end
local retried = #heads
if one then
  for _, head in ipairs(heads) do redis.call('ZADD', head[1], 0, head[2]) end
else
  retried = redis.call('ZCARD', live.retries) + redis.call('ZCARD', replayed.retries)
  bring_forward(live.retries)
  bring_forward(replayed.retries)
end
end_waiting(schedule, lease, id, live, replayed, replay_queue)
return retried
