-- include _clock
-- include _subscriptions
-- Stores a new or an edited subscription and moves the subscriptions' version on. One whose lane
-- was filled from the log beforehand is stored only if the lane has caught up with the log.
--
-- KEYS  1 subscription  2 subscriptions  3 version  4 lane  5 due lanes  6 claimed lanes
--       7 events  8 totals  9 replayed  10 replay queue  11 lane state
-- ARGV  1 id  2 created ms  3 record as read, '' if new  4 record  5 its state but for its lane
--       6 where the log has been read up to (start of an XRANGE), '' if it was not
--       7 how many there may be, then pairs to set: field, sealed value, '' to remove it
-- Result 'OK', 'STALE' if the record is no longer as read, 'BEHIND' if there is more to read, or
-- 'FULL' if another one would be too many
if (redis.call('HGET', KEYS[1], 'record') or '') ~= ARGV[3] then return 'STALE' end
if ARGV[3] == '' and redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[7]) then return 'FULL' end
if ARGV[6] ~= '' and #redis.call('XRANGE', KEYS[7], ARGV[6], '+', 'COUNT', 1) > 0 then
  return 'BEHIND'
end
redis.call('HSET', KEYS[1], 'record', ARGV[4])
for at = 8, #ARGV, 2 do
  if ARGV[at + 1] == '' then
    redis.call('HDEL', KEYS[1], ARGV[at])
  else
    redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
  end
end
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
bump_version(KEYS[3])
local pending = redis.call('XLEN', KEYS[4])
if ARGV[6] ~= '' and pending > 0 then
  redis.call('PERSIST', KEYS[4])
  redis.call('HINCRBY', KEYS[8], 'pending', pending)
end
if ARGV[5] == 'paused' then
  redis.call('HSET', KEYS[11], 'paused', '1')
else
  redis.call('HDEL', KEYS[11], 'paused')
end
count_lane(KEYS[11], KEYS[8])
if ARGV[5] ~= 'active' then
  redis.call('ZREM', KEYS[5], ARGV[1])
elseif pending + redis.call('XLEN', KEYS[9]) + redis.call('LLEN', KEYS[10]) > 0
  and not redis.call('ZSCORE', KEYS[6], ARGV[1]) then
  redis.call('ZADD', KEYS[5], 'LT', string.format('%.0f', now_ms()), ARGV[1])
end
return 'OK'
