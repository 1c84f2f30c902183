-- Extends a lease, and the claim beneath it, if it is still ours.
--
-- KEYS  1 claimed  2 lease
-- ARGV  1 id  2 lease token  3 lease ms
-- Result 1 if the lease is ours, else 0
if redis.call('GET', KEYS[2]) ~= ARGV[2] then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('PEXPIRE', KEYS[2], ARGV[3])
redis.call('ZADD', KEYS[1], 'XX', string.format('%.0f', now + tonumber(ARGV[3])), ARGV[1])
return 1
