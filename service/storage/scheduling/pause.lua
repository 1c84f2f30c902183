-- include _clock
-- No activity has this name: a removal of nothing allows the writes after it at the memory limit.
redis.call('HDEL', control, '')
for _, activity in ipairs(activities) do
  redis.call('HSETNX', control, activity, now_ms())
end
