-- Gives a lane back to the schedule: due at once if it holds anything not yet looked at, if its
-- worker asks for that, or if it holds something for which no retry is listed (as after a
-- server lost its last second); else at its next retry, else not at all.
--
-- KEYS  1 lease  2 lane  3 retries  4 due lanes  5 claimed lanes
-- ARGV  1 id  2 lease token  3 last position looked at, '-' if none, '+' if the sender's window
--       was full and only retries can empty it  4 'now', 'later' or 'never'
-- Result 1 if the lease was ours, else 0
if redis.call('GET', KEYS[1]) ~= ARGV[2] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[5], ARGV[1])
if ARGV[4] == 'never' or redis.call('XLEN', KEYS[2]) == 0 then return 1 end
local retry = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
local unseen = false
if ARGV[3] ~= '+' then
  local after = ARGV[3] == '-' and '-' or '(' .. ARGV[3]
  unseen = #redis.call('XRANGE', KEYS[2], after, '+', 'COUNT', 1) > 0
end
if unseen or ARGV[4] == 'now' or #retry == 0 then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('ZADD', KEYS[4], string.format('%.0f', now), ARGV[1])
else
  redis.call('ZADD', KEYS[4], retry[2], ARGV[1])
end
return 1
