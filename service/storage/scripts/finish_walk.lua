-- include _clock
-- include _events
-- include _announcing
-- include _states
local KEPT_WALKS = 50

if redis.call('GET', lease.key) ~= lease.token then return LEASE end
if redis.call('HGET', integration, 'epoch') ~= epoch then
  redis.call('DEL', lease.key)
  redis.call('UNLINK', seen, waiting)
  redis.call('ZREM', schedule.claimed, id)
  if redis.call('EXISTS', integration) == 1 then redis.call('ZADD', schedule.due, 'LT', 0, id) end
  return EPOCH
end
if (redis.call('HGET', integration, 'walk') or '') ~= progress then return PROGRESS end
if is_outdated(announced) then return SUBSCRIPTIONS end

redis.call('DEL', lease.key)
redis.call('ZREM', schedule.claimed, id)
local now = now_ms()
local due = now + wait_ms
local over = record ~= nil
if over then
  redis.call('HDEL', integration, 'walk')
  redis.call('UNLINK', seen, waiting)
  if redis.call('HGET', integration, 'requested_id') == walk_id
    and (kind == 'sweep' or redis.call('HGET', integration, 'requested') == 'delta') then
    redis.call('HDEL', integration, 'requested', 'requested_id')
  end
end
-- What was asked for meanwhile is due at once, and so is the walk after one that was joined;
-- what a walk waits for, it waits for anyhow.
if over and redis.call('HDEL', integration, 'again') == 1 then due = now end
local requested = redis.call('HGET', integration, 'requested_id')
if requested and (over or requested ~= queued) then due = math.min(due, now) end
local before = redis.call('HGET', integration, 'attention') == '1'
for field, value in pairs(fields) do redis.call('HSET', integration, field, value) end
if over then
  redis.call('HSET', walks, walk_id, record)
  redis.call('ZADD', walk_order, 'NX', now, walk_id)
  for _, walk in ipairs(redis.call('ZRANGE', walk_order, 0, -(KEPT_WALKS + 1))) do
    redis.call('HDEL', walks, walk)
    redis.call('ZREM', walk_order, walk)
  end
end
redis.call('ZADD', schedule.due, due, id)

-- One that is never walked to the end is as old as its first turn; one that is not walked, or
-- waits for a person, has no age.
local state = count_state(integration, announced.totals)
for of, index in pairs({delta = completed_deltas, sweep = completed_sweeps}) do
  if state == 'paused' or state == 'error' then
    redis.call('ZREM', index, id)
  elseif completed and (of == kind or of == 'delta') then
    redis.call('ZADD', index, now, id) -- a sweep shows what a delta does
  else
    redis.call('ZADD', index, 'NX', now, id)
  end
end

for counter, increment in pairs(increments) do
  redis.call('HINCRBY', announced.counters, counter, increment)
  redis.call('EXPIRE', announced.counters, COUNTERS_SECONDS)
end
local after = redis.call('HGET', integration, 'attention') == '1'
local happened = {troubled = after and not before, untroubled = before and not after}
return announce(announced, happened, now)
