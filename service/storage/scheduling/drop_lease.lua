-- include _clock
if redis.call('GET', lease.key) ~= lease.token then return end
redis.call('DEL', lease.key)
redis.call('ZREM', schedule.claimed, id)
if wait_ms then redis.call('ZADD', schedule.due, now_ms() + wait_ms, id) end
