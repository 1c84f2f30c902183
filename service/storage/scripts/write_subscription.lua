-- include _subscriptions
-- Stores a new or an edited subscription and moves the subscriptions' version on.
--
-- KEYS  1 subscription  2 subscriptions  3 version  4 lane  5 due lanes  6 claimed lanes
-- ARGV  1 id  2 created ms  3 record as read, '' if new  4 record  5 '1' if it is sent to
--       then pairs to set: field, sealed value
-- Result 'OK', or 'STALE' if the record is no longer as read
if (redis.call('HGET', KEYS[1], 'record') or '') ~= ARGV[3] then return 'STALE' end
redis.call('HSET', KEYS[1], 'record', ARGV[4])
for at = 6, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
bump_version(KEYS[3])
if ARGV[5] ~= '1' then
  redis.call('ZREM', KEYS[5], ARGV[1])
elseif redis.call('XLEN', KEYS[4]) > 0 and not redis.call('ZSCORE', KEYS[6], ARGV[1]) then
  redis.call('ZADD', KEYS[5], 'LT', string.format('%.0f', now_ms()), ARGV[1])
end
return 'OK'
