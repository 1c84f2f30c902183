-- Makes something due now, unless somebody is at work on it.
--
-- KEYS  1 due  2 claimed
-- ARGV  1 id
-- Result 1 if it is due now, 0 if it is claimed already
if redis.call('ZSCORE', KEYS[2], ARGV[1]) then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], 'LT', string.format('%.0f', now), ARGV[1])
return 1
