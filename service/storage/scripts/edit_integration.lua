-- include _clock
-- include _events
-- include _announcing
-- include _epochs
-- include _states
-- Stores an edited integration; another upstream begins a new epoch of it.
--
-- KEYS  1 integration  2 upstreams  3 credential before  4 credential after  5 due walks
--       6 claimed walks  7 totals  8 completed deltas  9 completed sweeps
--       10 to 16 what is kept of the epoch in force  17 events  18 subscriptions version
--       19 counters  20 due lanes  21 claimed lanes  22.. the lanes that announcements go to
-- ARGV  1 id  2 record as read  3 record  4 epoch as read  5 next epoch, '' to stay in it
--       6 upstream before  7 upstream after  8 and 9 the credentials' records as read
--       10 'wake', 'stop' or 'leave': what becomes of its place in the schedule
--       11 '1' if the next epoch begins only where the baseline is not complete
--       12 subscriptions version that announcements were matched with  13 number of lanes
--       14 number of announcements
--       then per lane: id, '1' if it may be woken
--       then per announcement 7, as in _announcing; the change is 'epoch'
-- Result {'OK'}, {'EXISTS', id of the integration on that upstream}, {'STALE'} or
--       {'SUBSCRIPTIONS'}
if redis.call('HGET', KEYS[1], 'record') ~= ARGV[2]
  or redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[4]
  or redis.call('HGET', KEYS[3], 'record') ~= ARGV[8]
  or redis.call('HGET', KEYS[4], 'record') ~= ARGV[9] then
  return {'STALE'}
end
if ARGV[14] ~= '0' and (redis.call('GET', KEYS[18]) or '0') ~= ARGV[12] then
  return {'SUBSCRIPTIONS'}
end
if ARGV[6] ~= ARGV[7] then
  local existing = redis.call('HGET', KEYS[2], ARGV[7])
  if existing then return {'EXISTS', existing} end
  redis.call('HDEL', KEYS[2], ARGV[6])
  redis.call('HSET', KEYS[2], ARGV[7], ARGV[1])
end
if KEYS[3] ~= KEYS[4] then
  redis.call('HINCRBY', KEYS[3], 'uses', -1)
  redis.call('HINCRBY', KEYS[4], 'uses', 1)
end
redis.call('HSET', KEYS[1], 'record', ARGV[3], 'paused', ARGV[10] == 'stop' and '1' or '')
local happened = {}
if ARGV[5] ~= '' and (ARGV[11] ~= '1' or redis.call('HGET', KEYS[1], 'baselined') ~= '1') then
  local kept = {}
  for key = 10, 16 do kept[#kept + 1] = KEYS[key] end
  begin_epoch(KEYS[1], KEYS[7], ARGV[5], kept)
  happened.epoch = true
end
if ARGV[10] == 'wake' then wake_walk(KEYS[5], KEYS[6], ARGV[1]) end
if ARGV[10] == 'stop' then
  for _, key in ipairs({KEYS[5], KEYS[8], KEYS[9]}) do redis.call('ZREM', key, ARGV[1]) end
end
count_state(KEYS[1], KEYS[7])
local named = lanes_of(tonumber(ARGV[13]), 22, 15)
announce(tonumber(ARGV[14]), 15 + 2 * tonumber(ARGV[13]), happened, KEYS[17], named, KEYS[7], KEYS[19])
wake_lanes(KEYS[20], KEYS[21], named.touched, named.ids, named.wakeable, now_ms())
return {'OK'}
