-- Keeps what an answer said of a credential's rate limit.
--
-- KEYS  1 budget
-- ARGV  1 ms for which nothing is to be sent, 0 if none  2 limit  3 remaining
--       4 ms until the window ends; 2 to 4 '' where the answer did not say
-- Result 'OK'
local SAME_WINDOW = 1500 -- ms by which its end may seem to differ, as it is told in seconds

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = redis.call('HMGET', KEYS[1],
  'hold', 'reset_at', 'remaining', 'limit', 'window', 'line', 'again')
local hold, reset = tonumber(known[1] or 0), tonumber(known[2] or 0)
if tonumber(ARGV[1]) > 0 then
  hold = math.max(hold, now + tonumber(ARGV[1]))
  redis.call('HSET', KEYS[1], 'hold', string.format('%.0f', hold))
end
if ARGV[4] ~= '' then
  local remaining, ends = tonumber(ARGV[3]), now + tonumber(ARGV[4])
  local limit = tonumber(ARGV[2]) or math.max(tonumber(known[4] or 0), remaining)
  local window = tonumber(known[5] or 0)
  if reset > now and math.abs(ends - reset) < SAME_WINDOW then
    -- Requests under way are counted here already, and there not yet.
    remaining = math.min(remaining, tonumber(known[3] or remaining))
  else
    window = tonumber(ARGV[4])
  end
  reset = ends
  redis.call('HSET', KEYS[1], 'limit', string.format('%.0f', limit),
    'remaining', string.format('%.0f', remaining), 'reset_at', string.format('%.0f', reset),
    'window', string.format('%.0f', window))
end
local last = math.max(hold, reset, tonumber(known[6] or 0), tonumber(known[7] or 0), now)
redis.call('PEXPIRE', KEYS[1], last - now + 60000)
return 'OK'
