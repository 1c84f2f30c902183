-- include _clock
-- include _positions
-- include _events
-- include _announcing
-- include _states
-- include _leases
local KEPT_POLLS = 50

if redis.call('GET', lease.key) ~= lease.token then return LEASE end
if redis.call('HGET', integration, 'epoch') ~= epoch then
  drop_lease(schedule, lease, id)
  redis.call('UNLINK', seen, waiting)
  if redis.call('EXISTS', integration) == 1 then redis.call('ZADD', schedule.due, 'LT', 0, id) end
  return EPOCH
end
if (redis.call('HGET', integration, 'poll') or '') ~= progress then return PROGRESS end
if is_outdated(announced) then return SUBSCRIPTIONS end

drop_lease(schedule, lease, id)
local now = now_ms()
local due = now + wait_ms
local over = record ~= nil
if over then
  redis.call('HDEL', integration, 'poll')
  redis.call('UNLINK', seen, waiting)
  if redis.call('HGET', integration, 'requested_id') == poll_id
    and (kind == 'full' or redis.call('HGET', integration, 'requested') == 'delta') then
    redis.call('HDEL', integration, 'requested', 'requested_id')
  end
end
-- A poll that was requested meanwhile is due at once, and so is the poll after one that was joined or
-- during which a review was decided; the wait of an unfinished poll stays.
if over and redis.call('HDEL', integration, 'again') == 1 then due = now end
local requested = redis.call('HGET', integration, 'requested_id')
if requested and (over or requested ~= queued) then due = math.min(due, now) end
local before = redis.call('HGET', integration, 'attention') == '1'
for field, value in pairs(fields) do redis.call('HSET', integration, field, value) end
if over then
  redis.call('HSET', polls, poll_id, record)
  redis.call('ZADD', poll_order, 'NX', now, poll_id)
  for _, poll in ipairs(redis.call('ZRANGE', poll_order, 0, -(KEPT_POLLS + 1))) do
    redis.call('HDEL', polls, poll)
    redis.call('ZREM', poll_order, poll)
  end
end
redis.call('ZADD', schedule.due, due, id)

-- Without a complete poll the age counts from the first turn; an integration that is not polled, or
-- needs an operator, has no age.
local state = count_state(integration, announced.totals)
for of, index in pairs({delta = completed_deltas, full = completed_full_polls}) do
  if state == 'paused' or state == 'error' then
    redis.call('ZREM', index, id)
  elseif completed and (of == kind or of == 'delta') then
    redis.call('ZADD', index, now, id) -- a full poll includes a delta
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
