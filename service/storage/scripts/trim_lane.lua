-- Gives up entries whose events are no longer in the log, oldest first, in steps.
--
-- KEYS  1 lane  2 retries  3 failing  4 dead  5 totals
-- ARGV  1 position before which they go  2 most at once  3 the reason
-- Result how many went
local gone = redis.call('XRANGE', KEYS[1], '-', '(' .. ARGV[1], 'COUNT', ARGV[2])
for _, entry in ipairs(gone) do
  local position = entry[1]
  redis.call('XDEL', KEYS[1], position)
  redis.call('ZREM', KEYS[2], position)
  local failing = redis.call('HGET', KEYS[3], position) or '0'
  redis.call('HDEL', KEYS[3], position)
  redis.call('XADD', KEYS[4], '*', 'p', position, 'a', string.match(failing, '^%d+'), 'r', ARGV[3])
end
if #gone > 0 then
  redis.call('HINCRBY', KEYS[5], 'pending', -#gone)
  redis.call('HINCRBY', KEYS[5], 'dead', #gone)
end
return #gone
