-- Shared by the scripts that begin and end claimed work.

-- Takes the lease of claimed work; returns whether it is held now. A repeated call finds it held.
local function take_lease(schedule, lease, id, claim, now)
  local token = redis.call('GET', lease.key)
  if token == lease.token then return true end
  local score = redis.call('ZSCORE', schedule.claimed, id)
  if token or not score or tonumber(score) ~= claim then return false end
  -- The removal comes first, so that it runs even when Redis is at its memory limit.
  redis.call('ZREM', schedule.overdue, id)
  redis.call('SET', lease.key, lease.token, 'PX', lease.ms)
  redis.call('ZADD', schedule.claimed, now + lease.ms, id)
  return true
end

-- Ends claimed work.
local function drop_lease(schedule, lease, id)
  redis.call('DEL', lease.key)
  redis.call('ZREM', schedule.claimed, id)
end
