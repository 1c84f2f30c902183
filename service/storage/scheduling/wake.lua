-- include _clock
if redis.call('ZSCORE', schedule.claimed, id) then return end
redis.call('ZADD', schedule.due, 'LT', now_ms(), id)
