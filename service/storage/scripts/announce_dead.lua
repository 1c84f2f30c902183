-- include _clock
-- include _events
-- include _announcing
-- Announces deliveries that have died: takes what was told out of what is untold and appends the
-- event that tells it. What has died since it was read stays for the next. Begins with a removal,
-- so that it still runs when Redis is at its memory limit.
--
-- KEYS  1 untold  2 subscriptions version  3 events  4 totals  5 counters  6 due lanes
--       7 claimed lanes  8.. the lanes that the announcement goes to
-- ARGV  1 subscriptions version that it was matched with  2 number of lanes
--       3 number of reasons
--       then per lane: id, '1' if it may be woken
--       then per reason: its field, how many deliveries are told
--       then the announcement, 7, as in _announcing
-- Result 'OK', 'STALE' if another has told of them, or 'SUBSCRIPTIONS'
local lanes, reasons = tonumber(ARGV[2]), tonumber(ARGV[3])
local first = 4 + 2 * lanes
if (redis.call('GET', KEYS[2]) or '0') ~= ARGV[1] then return 'SUBSCRIPTIONS' end
for at = first, first + 2 * reasons - 2, 2 do
  if tonumber(redis.call('HGET', KEYS[1], ARGV[at]) or '0') < tonumber(ARGV[at + 1]) then
    return 'STALE'
  end
end
redis.call('HDEL', KEYS[1], 'first', 'last')
for at = first, first + 2 * reasons - 2, 2 do
  if redis.call('HINCRBY', KEYS[1], ARGV[at], -ARGV[at + 1]) == 0 then
    redis.call('HDEL', KEYS[1], ARGV[at])
  end
end
local named = lanes_of(lanes, 8, 4)
announce(1, first + 2 * reasons, {}, KEYS[3], named, KEYS[4], KEYS[5])
wake_lanes(KEYS[6], KEYS[7], named.touched, named.ids, named.wakeable, now_ms())
return 'OK'
