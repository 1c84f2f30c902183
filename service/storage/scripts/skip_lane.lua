-- Takes entries off a lane unsent, oldest first, in steps. A sender at work finds out from
-- `emptied`. Begins with a removal, so that it still runs when Redis is at its memory limit.
--
-- KEYS  1 lane  2 retries  3 failing  4 lane state  5 totals  6 counters
-- ARGV  1 id up to which they go, inclusive  2 most at once  3 random, to tell this from others
--       4 counter of what was skipped
-- Result how many went
local gone = redis.call('XRANGE', KEYS[1], '-', ARGV[1], 'COUNT', ARGV[2])
if #gone == 0 then return 0 end
redis.call('HDEL', KEYS[4], 'cursor')
for _, entry in ipairs(gone) do
  local position, key = entry[1], entry[2][2]
  redis.call('XDEL', KEYS[1], position)
  if string.match(redis.call('HGET', KEYS[3], key) or '', '^%S+') == position then
    redis.call('HDEL', KEYS[3], key)
    redis.call('ZREM', KEYS[2], key)
  end
end
redis.call('HSET', KEYS[4], 'emptied', ARGV[3])
redis.call('HINCRBY', KEYS[5], 'pending', -#gone)
redis.call('HINCRBY', KEYS[6], ARGV[4], #gone)
redis.call('EXPIRE', KEYS[6], 604800)
return #gone
