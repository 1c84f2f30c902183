-- include _clock
-- include _events
-- include _announcing
-- include _states
-- Ends a worker's turn at an integration: stores what came of it, lists the walk, gives the
-- lease back and puts the integration in the schedule. May append operational events.
--
-- KEYS  1 lease  2 integration  3 walks  4 walk order  5 seen  6 due walks  7 claimed walks
--       8 events  9 subscriptions version  10 totals  11 counters  12 due lanes
--       13 claimed lanes  14 waiting  15 completed deltas  16 completed sweeps
--       17.. the lanes named in ARGV
-- ARGV  1 lease token  2 epoch  3 integration id  4 ms until due  5 walk id
--       6 walk JSON, '' if it is not over
--       7 '1' if the walk is over (forget its progress, its sets and its request)
--       8 subscriptions version  9 number of announcements
--       10 number of lanes  11 number of counters  12 progress of the walk as last stored
--       13 id of the walk queued when the turn began, '' if none  14 kind of the walk
--       15 '1' if it was completed
--       then per lane: id, '1' if it may be woken
--       then per counter: field, increment
--       then per announcement 7, as in _announcing; changes are 'troubled' and 'untroubled'
--       then pairs to set in the integration: field, value
-- Result {'OK', lanes woken} or {'LEASE'}, {'EPOCH'}, {'PROGRESS'}, {'SUBSCRIPTIONS'}
local KEPT_WALKS = 50

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'LEASE'} end
if redis.call('HGET', KEYS[2], 'epoch') ~= ARGV[2] then
  redis.call('DEL', KEYS[1])
  redis.call('UNLINK', KEYS[5], KEYS[14])
  redis.call('ZREM', KEYS[7], ARGV[3])
  if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('ZADD', KEYS[6], 'LT', 0, ARGV[3]) end
  return {'EPOCH'}
end
if (redis.call('HGET', KEYS[2], 'walk') or '') ~= ARGV[12] then return {'PROGRESS'} end
if ARGV[9] ~= '0' and (redis.call('GET', KEYS[9]) or '0') ~= ARGV[8] then
  return {'SUBSCRIPTIONS'}
end

redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[7], ARGV[3])
local now = now_ms()
local notices, lanes, counters = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
local due = now + tonumber(ARGV[4])
if ARGV[7] == '1' then
  redis.call('HDEL', KEYS[2], 'walk')
  redis.call('UNLINK', KEYS[5], KEYS[14])
  if redis.call('HGET', KEYS[2], 'requested_id') == ARGV[5]
    and (ARGV[14] == 'sweep' or redis.call('HGET', KEYS[2], 'requested') == 'delta') then
    redis.call('HDEL', KEYS[2], 'requested', 'requested_id')
  end
end
-- What was asked for meanwhile is due at once, and so is the walk after one that was joined;
-- what a walk waits for, it waits for anyhow.
if ARGV[7] == '1' and redis.call('HDEL', KEYS[2], 'again') == 1 then due = now end
local requested = redis.call('HGET', KEYS[2], 'requested_id') or ''
if requested ~= '' and (ARGV[7] == '1' or requested ~= ARGV[13]) then due = math.min(due, now) end
local first = 16 + 2 * lanes + 2 * counters
local before = redis.call('HGET', KEYS[2], 'attention') == '1'
for at = first + NOTICE * notices, #ARGV, 2 do
  redis.call('HSET', KEYS[2], ARGV[at], ARGV[at + 1])
end
if ARGV[6] ~= '' then
  redis.call('HSET', KEYS[3], ARGV[5], ARGV[6])
  redis.call('ZADD', KEYS[4], 'NX', now, ARGV[5])
  local excess = redis.call('ZRANGE', KEYS[4], 0, -(KEPT_WALKS + 1))
  for _, walk in ipairs(excess) do
    redis.call('HDEL', KEYS[3], walk)
    redis.call('ZREM', KEYS[4], walk)
  end
end
redis.call('ZADD', KEYS[6], string.format('%.0f', due), ARGV[3])

-- One that is never walked to the end is as old as its first turn; one that is not walked, or
-- waits for a person, has no age.
local state = count_state(KEYS[2], KEYS[10])
for at, kind in ipairs({'delta', 'sweep'}) do
  local completed = KEYS[14 + at]
  if state == 'paused' or state == 'error' then
    redis.call('ZREM', completed, ARGV[3])
  elseif ARGV[15] == '1' and (kind == ARGV[14] or kind == 'delta') then
    redis.call('ZADD', completed, now, ARGV[3]) -- a sweep shows what a delta does
  else
    redis.call('ZADD', completed, 'NX', now, ARGV[3])
  end
end

local after = redis.call('HGET', KEYS[2], 'attention') == '1'
local named = lanes_of(lanes, 17, 16)
announce(notices, first, {troubled = after and not before, untroubled = before and not after},
  KEYS[8], named, KEYS[10], KEYS[11])
for counter = 1, counters do
  local at = 14 + 2 * lanes + 2 * counter
  redis.call('HINCRBY', KEYS[11], ARGV[at], ARGV[at + 1])
end
if counters > 0 then redis.call('EXPIRE', KEYS[11], 604800) end
return {'OK', wake_lanes(KEYS[12], KEYS[13], named.touched, named.ids, named.wakeable, now)}
