-- Keeps what an answer said of a credential's rate limit.
--
-- KEYS  1 budget
-- ARGV  1 ms for which nothing is to be sent, 0 if none  2 limit  3 remaining
--       4 ms until the window ends; 2 to 4 '' where the answer did not say
-- Result ms at which requests may be sent again, 0 if now
local SAME_WINDOW = 1500 -- ms by which its end may seem to differ, as it is told in seconds

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = redis.call('HMGET', KEYS[1], 'hold', 'reset_at', 'remaining', 'line')
local hold, reset = tonumber(known[1] or 0), tonumber(known[2] or 0)
if tonumber(ARGV[1]) > 0 then
  hold = math.max(hold, now + tonumber(ARGV[1]))
  redis.call('HSET', KEYS[1], 'hold', string.format('%.0f', hold))
end
if ARGV[4] ~= '' then
  local remaining, ends = tonumber(ARGV[3]), now + tonumber(ARGV[4])
  -- Requests under way are counted here already, and there not yet.
  if reset > now and math.abs(ends - reset) < SAME_WINDOW then
    remaining = math.min(remaining, tonumber(known[3] or remaining))
  end
  reset = ends
  redis.call('HSET', KEYS[1], 'limit', ARGV[2], 'remaining', string.format('%.0f', remaining),
    'reset_at', string.format('%.0f', reset))
end
redis.call('PEXPIRE', KEYS[1], math.max(hold, reset, tonumber(known[4] or 0), now) - now + 60000)
return hold > now and hold or 0
