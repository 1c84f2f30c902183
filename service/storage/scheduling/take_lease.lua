-- include _clock
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
