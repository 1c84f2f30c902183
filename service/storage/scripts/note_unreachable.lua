-- Notes that a receiver could not be connected to, and tells how the others are doing.
--
-- KEYS  1 receivers unreachable  2 receivers reached
-- ARGV  1 receiver  2 window ms
-- Result how many could not be connected to lately, and those with the ones that were reached
--        since the first of these failures
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local since = string.format('%.0f', now - tonumber(ARGV[2]))
redis.call('ZREM', KEYS[2], ARGV[1])
for key = 1, 2 do redis.call('ZREMRANGEBYSCORE', KEYS[key], '-inf', '(' .. since) end
redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
redis.call('EXPIRE', KEYS[1], 60)
local unreachable = redis.call('ZCARD', KEYS[1])
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
return {unreachable, unreachable + redis.call('ZCOUNT', KEYS[2], first, '+inf')}
