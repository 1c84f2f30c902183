-- include _events
-- Commits one part of a walk: fingerprints, their events, the lanes, the counters and the
-- walk's progress, all or nothing. Everything is validated before the first write.
--
-- KEYS  1 lease  2 integration  3 catalogue  4 quarantine  5 seen  6 events
--       7 subscriptions version  8 totals  9 counters  10 due lanes  11 claimed lanes
--       12.. the lanes named in ARGV
-- ARGV  1 lease token  2 lease ms  3 epoch  4 subscriptions version
--       5 progress of the walk as last stored ('' if none): what this commit builds on, so that
--         neither a repeated call nor a server that lost its last second goes unnoticed
--       6 progress from now on (JSON)  7 seen digests or ''  8 seen lifetime s
--       9 number of lanes  10 number of counters  11 integration id
--       then per lane: id, '1' if it may be woken
--       then per counter: field, increment
--       then per change 13: course id, 'P' (put) or 'Q' (quarantine), head or reason,
--       previous sequence, previous event, tail, live courses +1/0/-1, event type or '',
--       suffix, facts, body or '', order key, targets
-- Result {'OK', events, lanes woken} or {'LEASE'}, {'EPOCH'}, {'PROGRESS'}, {'SUBSCRIPTIONS'}
local CHANGE = 13

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'LEASE'} end
if redis.call('HGET', KEYS[2], 'epoch') ~= ARGV[3] then return {'EPOCH'} end
if (redis.call('HGET', KEYS[2], 'walk') or '') ~= ARGV[5] then return {'PROGRESS'} end
if (redis.call('GET', KEYS[7]) or '0') ~= ARGV[4] then return {'SUBSCRIPTIONS'} end
local lanes, counters = tonumber(ARGV[9]), tonumber(ARGV[10])
local first = 12 + 2 * lanes + 2 * counters
if (#ARGV - first + 1) % CHANGE ~= 0 or #KEYS ~= 11 + lanes then
  return redis.error_reply('commit: wrong number of arguments')
end

-- A write that may grow comes first: at the memory limit Redis then refuses the whole commit.
redis.call('HSET', KEYS[2], 'walk', ARGV[6])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local now = now_ms()
local lane_keys, lane_ids, wakeable, touched = {}, {}, {}, {}
for lane = 1, lanes do
  lane_keys[lane] = KEYS[11 + lane]
  lane_ids[lane] = ARGV[10 + 2 * lane]
  wakeable[lane] = ARGV[11 + 2 * lane]
end

local live, events, entered, quarantined = 0, 0, 0, 0
for at = first, #ARGV, CHANGE do
  local course, operation = ARGV[at], ARGV[at + 1]
  if operation == 'Q' then
    quarantined = quarantined + redis.call('HSET', KEYS[4], course, ARGV[at + 2])
    -- Whatever bytes come next are looked at, even those from before.
    local known = redis.call('HGET', KEYS[3], course)
    if known then
      redis.call('HSET', KEYS[3], course,
        string.sub(known, 1, 41) .. string.rep('\0', 16) .. string.sub(known, 58))
    end
  else
    local previous = tonumber(ARGV[at + 3])
    local sequence, event = previous, ARGV[at + 4]
    if ARGV[at + 7] ~= '' then
      sequence = math.max(previous + 1, now)
      local position
      position, event = append_event(KEYS[6], {
        type = ARGV[at + 7], integration = ARGV[11], course = course, suffix = ARGV[at + 8],
        sequence = string.format('%.0f', sequence), previous = ARGV[at + 3],
        facts = ARGV[at + 9], body = ARGV[at + 10],
      })
      events = events + 1
      entered = entered + enter_lanes(lane_keys, touched, ARGV[at + 12], position, ARGV[at + 11])
    end
    redis.call('HSET', KEYS[3], course,
      ARGV[at + 2] .. string.format('%013.0f', sequence) .. event .. ARGV[at + 5])
    live = live + tonumber(ARGV[at + 6])
    quarantined = quarantined - redis.call('HDEL', KEYS[4], course)
  end
end

if live ~= 0 then
  redis.call('HINCRBY', KEYS[2], 'course_count', live)
  redis.call('HINCRBY', KEYS[8], 'courses', live)
end
if quarantined ~= 0 then
  redis.call('HINCRBY', KEYS[2], 'quarantined', quarantined)
  redis.call('HINCRBY', KEYS[8], 'quarantined', quarantined)
end
if ARGV[7] ~= '' then
  redis.call('APPEND', KEYS[5], ARGV[7])
  redis.call('EXPIRE', KEYS[5], ARGV[8])
end
if entered ~= 0 then redis.call('HINCRBY', KEYS[8], 'pending', entered) end
for counter = 1, counters do
  local at = 10 + 2 * lanes + 2 * counter
  redis.call('HINCRBY', KEYS[9], ARGV[at], ARGV[at + 1])
end
if counters > 0 then redis.call('EXPIRE', KEYS[9], 604800) end
return {'OK', events, wake_lanes(KEYS[10], KEYS[11], touched, lane_ids, wakeable, now)}
