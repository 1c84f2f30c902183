-- include _clock
-- include _leases
if redis.call('GET', lease.key) ~= lease.token then return end
drop_lease(schedule, lease, id)
if wait_ms then redis.call('ZADD', schedule.due, now_ms() + wait_ms, id) end
