-- include _subscriptions
-- Deletes a subscription with its lane and all that is kept of it. Work under way loses its
-- lease.
--
-- KEYS  1 subscription  2 subscriptions  3 version  4 lane  5 dead  6 totals  7 due lanes
--       8 claimed lanes  9 lease  10 lane state  11.. its retries, failing, dead facts and attempts
-- ARGV  1 id
-- Result 1, or 0 if there is none
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[7], ARGV[1])
redis.call('ZREM', KEYS[8], ARGV[1])
local pending, dead = redis.call('XLEN', KEYS[4]), redis.call('ZCARD', KEYS[5])
for _, state in ipairs({'parked', 'disabled'}) do
  if redis.call('HEXISTS', KEYS[10], state) == 1 then
    redis.call('HINCRBY', KEYS[6], state, -1)
  end
end
redis.call('UNLINK', KEYS[1], KEYS[4], KEYS[5], KEYS[9])
for key = 10, #KEYS do redis.call('UNLINK', KEYS[key]) end
if pending ~= 0 then redis.call('HINCRBY', KEYS[6], 'pending', -pending) end
if dead ~= 0 then redis.call('HINCRBY', KEYS[6], 'dead', -dead) end
bump_version(KEYS[3])
return 1
