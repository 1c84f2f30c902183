-- include _clock
if redis.call('GET', lease.key) ~= lease.token then return LEASE end
redis.call('PEXPIRE', lease.key, lease.ms)
redis.call('ZADD', schedule.claimed, 'XX', now_ms() + lease.ms, id)
