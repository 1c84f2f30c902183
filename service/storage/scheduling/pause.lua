-- include _clock
-- No activity has this name: a removal of nothing allows the writes after it at the memory limit.
redis.call('HDEL', control, '')
local now = now_ms()
for _, activity in ipairs(activities) do
  redis.call('HSETNX', control, activity, now)
end
