-- include _clock
-- include _events
-- include _announcing
-- include _subscriptions
-- Brings a subscription back to active: its record, its lane's memory of failures and holds, and
-- all its retries, which are due now. A sender at work finds out from `resumed`.
--
-- KEYS  1 subscription  2 version  3 lane  4 retries  5 lane state  6 totals  7 due lanes
--       8 claimed lanes  9 lease  10 replayed  11 replayed retries  12 replay queue
--       13 events  14 counters  15.. the lanes that announcements go to
-- ARGV  1 id  2 record as read  3 record  4 random, to tell this resume from others
--       5 subscriptions version that announcements were matched with  6 number of lanes
--       7 number of announcements
--       then per lane: id, '1' if it may be woken
--       then per announcement 7, as in _announcing; changes are 'unparked' and 'enabled'
-- Result 'OK', 'STALE' if the record is no longer as read, or 'SUBSCRIPTIONS'
if redis.call('HGET', KEYS[1], 'record') ~= ARGV[2] then return 'STALE' end
if (redis.call('GET', KEYS[2]) or '0') ~= ARGV[5] then return 'SUBSCRIPTIONS' end
-- A removal first, so that it runs even when Redis is at its memory limit.
redis.call('HDEL', KEYS[5], 'breaker')
redis.call('HSET', KEYS[1], 'record', ARGV[3])
bump_version(KEYS[2])
redis.call('HDEL', KEYS[5], 'failing', 'paused')
local happened = {
  unparked = redis.call('HDEL', KEYS[5], 'parked') == 1,
  enabled = redis.call('HDEL', KEYS[5], 'disabled') == 1,
}
count_lane(KEYS[5], KEYS[6])
redis.call('HSET', KEYS[5], 'resumed', ARGV[4])
for _, retries in ipairs({KEYS[4], KEYS[11]}) do
  if redis.call('ZCARD', retries) > 0 then
    redis.call('ZUNIONSTORE', retries, 1, retries, 'WEIGHTS', 0)
  end
end
if redis.call('EXISTS', KEYS[9]) == 0 then
  redis.call('ZREM', KEYS[8], ARGV[1])
  if redis.call('XLEN', KEYS[3]) + redis.call('XLEN', KEYS[10])
    + redis.call('LLEN', KEYS[12]) > 0 then
    redis.call('ZADD', KEYS[7], 'LT', string.format('%.0f', now_ms()), ARGV[1])
  end
end
local named = lanes_of(tonumber(ARGV[6]), 15, 8)
announce(tonumber(ARGV[7]), 8 + 2 * tonumber(ARGV[6]), happened, KEYS[13], named, KEYS[6], KEYS[14])
wake_lanes(KEYS[7], KEYS[8], named.touched, named.ids, named.wakeable, now_ms())
return 'OK'
