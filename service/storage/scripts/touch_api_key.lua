-- Notes that an API key is in use, unless that was noted lately or the key is gone.
--
-- KEYS  1 API key
-- ARGV  1 ms between two notes
-- Result 1 if it was noted, else 0
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if now - tonumber(redis.call('HGET', KEYS[1], 'last_used_at') or '0') < tonumber(ARGV[1]) then
  return 0
end
redis.call('HSET', KEYS[1], 'last_used_at', string.format('%.0f', now))
return 1
