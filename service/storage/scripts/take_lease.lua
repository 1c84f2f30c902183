-- Begins work on something claimed. A stale claim, or a lease still held, gives nothing; a
-- repeated call gives what the first gave.
--
-- KEYS  1 claimed  2 lease  3 overdue
-- ARGV  1 id  2 claim token  3 lease token  4 lease ms
-- Result 1 if the lease is ours, else 0
if redis.call('GET', KEYS[2]) == ARGV[3] then return 1 end
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or tonumber(score) ~= tonumber(ARGV[2]) then return 0 end
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- The removal first, so that it runs even when Redis is at its memory limit.
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4])
redis.call('ZADD', KEYS[1], string.format('%.0f', now + tonumber(ARGV[4])), ARGV[1])
return 1
