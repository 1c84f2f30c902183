-- include _clock
-- include _subscriptions
-- include _dead
-- Gives up entries whose events are no longer in the log, oldest first, in steps.
--
-- KEYS  1 lane  2 retries  3 failing  4 dead  5 totals  6 lane state  7 dead facts
--       8 untold  9 counters
-- ARGV  1 position before which they go  2 most at once  3 the reason  4 counter of what died
-- Result how many went
local now, listed = now_ms(), 0
local gone = redis.call('XRANGE', KEYS[1], '-', '(' .. ARGV[1], 'COUNT', ARGV[2])
for _, entry in ipairs(gone) do
  local position, key, rendering = entry[1], entry[2][2], entry[2][4]
  redis.call('XDEL', KEYS[1], position)
  local attempts = '0'
  local failed, counted = string.match(redis.call('HGET', KEYS[3], key) or '', '^(%S+) (%d+)')
  if failed == position then
    attempts = counted
    redis.call('HDEL', KEYS[3], key)
    redis.call('ZREM', KEYS[2], key)
  end
  listed = listed
    + list_dead(KEYS[4], KEYS[7], position, now, attempts, rendering, key, ARGV[3])
  note_dead(KEYS[8], position, key, ARGV[3])
end
if #gone > 0 then
  redis.call('HDEL', KEYS[6], 'cursor')
  redis.call('HINCRBY', KEYS[5], 'pending', -#gone)
  redis.call('HINCRBY', KEYS[5], 'dead', listed)
  redis.call('HINCRBY', KEYS[9], ARGV[4], #gone)
  redis.call('EXPIRE', KEYS[9], 604800)
end
return #gone
