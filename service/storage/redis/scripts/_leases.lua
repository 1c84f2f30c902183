-- Shared by the scripts that begin and end claimed work. Needs _clock.

-- Takes the lease of claimed work; returns whether it is held now. A repeated call finds it held.
local function take_lease(schedule, lease, id, claim)
  if redis.call('GET', lease.key) == lease.token then return true end
  local score = redis.call('ZSCORE', schedule.claimed, id)
  if not score or tonumber(score) ~= claim then return false end
  if redis.call('EXISTS', lease.key) == 1 then return false end
  -- The removal comes first, so that it runs even when Redis is at its memory limit.
  redis.call('ZREM', schedule.claimed, id)
  redis.call('ZREM', schedule.overdue, id)
  redis.call('SET', lease.key, lease.token, 'PX', lease.ms)
  redis.call('ZADD', schedule.claimed, now_ms() + lease.ms, id)
  return true
end

-- Ends claimed work.
local function drop_lease(schedule, lease, id)
  redis.call('DEL', lease.key)
  redis.call('ZREM', schedule.claimed, id)
end
