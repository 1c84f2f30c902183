-- include _clock
-- include _events
-- include _announcing
-- include _epochs
-- include _states
-- Stores an edited credential, and what that means for the integrations that use it: another
-- base URL begins a new epoch of each, another key makes each be walked at once.
--
-- KEYS  1 credential  2 upstreams  3 due walks  4 claimed walks  5 totals
--       6 events  7 subscriptions version  8 counters  9 due lanes  10 claimed lanes
--       then per integration 8: its hash, and the seven keys of the epoch in force
--       then the lanes that announcements go to
-- ARGV  1 record as read  2 record  3 sealed API key, '' to keep it
--       4 number of uses as read, '' if the integrations are not concerned
--       5 number of integrations  6 subscriptions version that announcements were matched with
--       7 number of lanes  8 number of announcements
--       then per integration 7: id, record as read, epoch as read, next epoch ('' to stay in
--       it), upstream before, upstream after, '1' if it may be woken
--       then per lane: id, '1' if it may be woken
--       then per announcement 7, as in _announcing; the change is 'epoch'
-- Result {'OK'}, {'EXISTS', id of the integration on that upstream}, {'STALE'} or
--       {'SUBSCRIPTIONS'}
local PER_INTEGRATION, KEYS_EACH, FIRST_KEY, FIRST = 7, 8, 11, 9
local integrations, lanes, notices = tonumber(ARGV[5]), tonumber(ARGV[7]), tonumber(ARGV[8])
local last = FIRST - 1 + PER_INTEGRATION * integrations
if redis.call('HGET', KEYS[1], 'record') ~= ARGV[1] then return {'STALE'} end
if ARGV[4] ~= '' and (redis.call('HGET', KEYS[1], 'uses') or '0') ~= ARGV[4] then
  return {'STALE'}
end
if notices > 0 and (redis.call('GET', KEYS[7]) or '0') ~= ARGV[6] then return {'SUBSCRIPTIONS'} end
for at = FIRST, last, PER_INTEGRATION do
  local integration = KEYS[FIRST_KEY + KEYS_EACH * (at - FIRST) / PER_INTEGRATION]
  if redis.call('HGET', integration, 'record') ~= ARGV[at + 1]
    or redis.call('HGET', integration, 'epoch') ~= ARGV[at + 2] then
    return {'STALE'}
  end
  if ARGV[at + 4] ~= ARGV[at + 5] then
    local existing = redis.call('HGET', KEYS[2], ARGV[at + 5])
    if existing then return {'EXISTS', existing} end
  end
end

redis.call('HSET', KEYS[1], 'record', ARGV[2])
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'api_key', ARGV[3]) end
for at = FIRST, last, PER_INTEGRATION do
  local key = FIRST_KEY + KEYS_EACH * (at - FIRST) / PER_INTEGRATION
  if ARGV[at + 3] ~= '' then
    redis.call('HDEL', KEYS[2], ARGV[at + 4])
    redis.call('HSET', KEYS[2], ARGV[at + 5], ARGV[at])
    local kept = {}
    for own = 1, KEYS_EACH - 1 do kept[own] = KEYS[key + own] end
    begin_epoch(KEYS[key], KEYS[5], ARGV[at + 3], kept)
    count_state(KEYS[key], KEYS[5])
  end
  if ARGV[at + 6] == '1' then wake_walk(KEYS[3], KEYS[4], ARGV[at]) end
end
local named = lanes_of(lanes, FIRST_KEY + KEYS_EACH * integrations, last + 1)
announce(notices, last + 1 + 2 * lanes, {epoch = true}, KEYS[6], named, KEYS[5], KEYS[8])
wake_lanes(KEYS[9], KEYS[10], named.touched, named.ids, named.wakeable, now_ms())
return {'OK'}
