-- Gives a lane back to the schedule: held back if its worker asks for that; due at once if it
-- holds anything not yet looked at, if its worker asks for that, if it was resumed meanwhile, or
-- if it holds something for which no retry is listed (as after a server lost its last second);
-- else at its next retry, else not at all.
--
-- KEYS  1 lease  2 lane  3 retries  4 due lanes  5 claimed lanes  6 lane state
-- ARGV  1 id  2 lease token  3 where the next sender reads on from (start of an XRANGE)
--       4 'now', 'later', 'held' or 'never'  5 ms to be held back  6 `resumed` as read
--       7 bucket JSON or ''  8 ms since when the lane has been read from its beginning to there
-- Result 1 if the lease was ours, else 0
if redis.call('GET', KEYS[1]) ~= ARGV[2] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[5], ARGV[1])
redis.call('HDEL', KEYS[6], 'cursor')
if ARGV[7] ~= '' then redis.call('HSET', KEYS[6], 'bucket', ARGV[7]) end
if ARGV[4] == 'never' or redis.call('XLEN', KEYS[2]) == 0 then return 1 end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local retry = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
local unseen = #redis.call('XRANGE', KEYS[2], ARGV[3], '+', 'COUNT', 1) > 0
if unseen or #retry > 0 then
  redis.call('HSET', KEYS[6], 'cursor', ARGV[8] .. ' ' .. ARGV[3])
end
local resumed = (redis.call('HGET', KEYS[6], 'resumed') or '') ~= ARGV[6]
if resumed or (ARGV[4] ~= 'held' and (unseen or ARGV[4] == 'now' or #retry == 0)) then
  redis.call('ZADD', KEYS[4], string.format('%.0f', now), ARGV[1])
elseif ARGV[4] == 'held' then
  redis.call('ZADD', KEYS[5], string.format('%.0f', now + tonumber(ARGV[5])), ARGV[1])
else
  redis.call('ZADD', KEYS[4], retry[2], ARGV[1])
end
return 1
