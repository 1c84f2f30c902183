-- include _clock
-- include _events
-- include _states
-- Commits one part of a walk: fingerprints, their events, the lanes, the counters and the
-- walk's progress, all or nothing. Everything is validated before the first write.
--
-- KEYS  1 lease  2 integration  3 catalogue  4 quarantine  5 seen  6 events
--       7 subscriptions version  8 totals  9 counters  10 due lanes  11 claimed lanes
--       12 waiting  13 held  14 review  15 decided  16.. the lanes named in ARGV
-- ARGV  1 lease token  2 lease ms  3 epoch  4 subscriptions version
--       5 progress of the walk as last stored ('' if none): what this commit builds on, so that
--         neither a repeated call nor a server that lost its last second goes unnoticed
--       6 progress from now on (JSON)  7 seen digests or ''  8 lifetime s of seen and waiting
--       9 number of lanes  10 number of counters  11 integration id  12 number of marks
--       13 type of the event that says that a review has opened, or ''  14 suffix  15 facts
--       16 targets
--       17 to 19 courses that must be live and known by these digests, or nothing is written:
--       ids joined, their lengths (4 bytes each, the least significant first), digests joined
--       then per lane: id, '1' if it may be woken
--       then per counter: field, increment
--       then per mark 3: course id, operation, withheld change or ''; operations are 'wait',
--       'absolve', 'hold', 'keep', 'release', 'decided' and 'forget' (a quarantined record)
--       then per change 13: course id, 'P' (put) or 'Q' (quarantine), head or reason,
--       previous sequence, previous event, tail, live courses +1/0/-1, event type or '',
--       suffix, facts, body or '', order key, targets
-- Result {'OK', events, lanes woken} or {'LEASE'}, {'EPOCH'}, {'PROGRESS'}, {'SUBSCRIPTIONS'},
--       {'DIFFER', indexes from 1 of the courses that are not as expected}
local LANE_KEYS, LANE_ARGS, MARK, CHANGE = 15, 19, 3, 13
local AT_ONCE = 5000 -- values that fit on Lua's stack

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'LEASE'} end
if redis.call('HGET', KEYS[2], 'epoch') ~= ARGV[3] then
  redis.call('UNLINK', KEYS[5], KEYS[12]) -- nothing else is left of that epoch
  return {'EPOCH'}
end
if (redis.call('HGET', KEYS[2], 'walk') or '') ~= ARGV[5] then return {'PROGRESS'} end
if (redis.call('GET', KEYS[7]) or '0') ~= ARGV[4] then return {'SUBSCRIPTIONS'} end
local lanes, counters, marks = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[12])
local first_mark = LANE_ARGS + 1 + 2 * lanes + 2 * counters
local first = first_mark + MARK * marks
if (#ARGV - first + 1) % CHANGE ~= 0 or #KEYS ~= LANE_KEYS + lanes then
  return redis.error_reply('commit: wrong number of arguments')
end

if ARGV[17] ~= '' then
  local ids, at = {}, 1
  for index = 1, #ARGV[18] / 4 do
    local a, b, c, d = string.byte(ARGV[18], 4 * index - 3, 4 * index)
    local length = a + 256 * (b + 256 * (c + 256 * d))
    ids[index] = string.sub(ARGV[17], at, at + length - 1)
    at = at + length
  end
  local result = {'DIFFER'}
  for start = 1, #ids, AT_ONCE do
    local stop = math.min(start + AT_ONCE - 1, #ids)
    local known = redis.call('HMGET', KEYS[3], unpack(ids, start, stop))
    for index = start, stop do
      local one = known[index - start + 1]
      if not one or string.sub(one, 2, 2) ~= 'L'
        or string.sub(one, 42, 57) ~= string.sub(ARGV[19], 16 * index - 15, 16 * index) then
        result[#result + 1] = index
      end
    end
  end
  if #result > 1 then return result end
end

-- A write that may grow comes first: at the memory limit Redis then refuses the whole commit.
redis.call('HSET', KEYS[2], 'walk', ARGV[6])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local now = now_ms()
local lane_keys, lane_ids, wakeable, touched = {}, {}, {}, {}
for lane = 1, lanes do
  lane_keys[lane] = KEYS[LANE_KEYS + lane]
  lane_ids[lane] = ARGV[LANE_ARGS - 1 + 2 * lane]
  wakeable[lane] = ARGV[LANE_ARGS + 2 * lane]
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

-- Counts a withheld change in the review: by kind, and an update by the number of each path.
local function tally(withheld, by)
  local kind = string.sub(withheld, 1, 1)
  redis.call('HINCRBY', KEYS[14], kind, by)
  if kind ~= 'U' then return end
  for at = 3, #withheld, 6 do
    redis.call('HINCRBY', KEYS[14], 'path' .. string.byte(withheld, at), by)
  end
end

local held, review_moved = 0, false
for at = first_mark, first - 1, MARK do
  local course, operation, withheld = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  if operation == 'wait' then
    redis.call('HSET', KEYS[12], course, withheld)
  elseif operation == 'absolve' then
    redis.call('HDEL', KEYS[12], course)
  elseif operation == 'forget' then
    quarantined = quarantined - redis.call('HDEL', KEYS[4], course)
  elseif operation == 'decided' then
    held = held - redis.call('HDEL', KEYS[15], course)
  else
    local known = redis.call('HGET', KEYS[13], course)
    if operation == 'release' then
      if known then
        redis.call('HDEL', KEYS[13], course)
        tally(known, -1)
        held, review_moved = held - 1, true
      end
    elseif withheld ~= known and (known or operation == 'hold') then
      if redis.call('HSETNX', KEYS[14], 'since', string.format('%.0f', now)) == 1
        and ARGV[13] ~= '' then
        local position = append_event(KEYS[6], {
          type = ARGV[13], integration = ARGV[11], course = '', suffix = ARGV[14],
          sequence = '0', previous = '0', facts = ARGV[15], body = '',
        })
        events = events + 1
        entered = entered + enter_lanes(lane_keys, touched, ARGV[16], position, ARGV[11])
        redis.call('HINCRBY', KEYS[9], 'events_total|' .. ARGV[13], 1)
      end
      if known then tally(known, -1) else held = held + 1 end
      redis.call('HSET', KEYS[13], course, withheld)
      tally(withheld, 1)
      review_moved = true
    end
    if operation == 'hold' then redis.call('HDEL', KEYS[12], course) end
  end
end
if review_moved then
  if redis.call('EXISTS', KEYS[13]) == 0 then
    redis.call('DEL', KEYS[14])
  else
    -- It follows the clock, so that a server that lost its last second repeats none.
    local version = tonumber(redis.call('HGET', KEYS[14], 'version') or '0')
    redis.call('HSET', KEYS[14], 'version', string.format('%.0f', math.max(version + 1, now)))
  end
end
if held ~= 0 then
  redis.call('HINCRBY', KEYS[2], 'held', held)
  redis.call('HINCRBY', KEYS[8], 'held', held)
  count_state(KEYS[2], KEYS[8])
end
if redis.call('EXISTS', KEYS[15]) == 0 then redis.call('HDEL', KEYS[2], 'decision') end

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
end
-- With every commit, for a walk may be kept waiting time and again.
redis.call('EXPIRE', KEYS[5], ARGV[8])
redis.call('EXPIRE', KEYS[12], ARGV[8])
if entered ~= 0 then redis.call('HINCRBY', KEYS[8], 'pending', entered) end
for counter = 1, counters do
  local at = LANE_ARGS - 1 + 2 * lanes + 2 * counter
  redis.call('HINCRBY', KEYS[9], ARGV[at], ARGV[at + 1])
end
if counters > 0 then redis.call('EXPIRE', KEYS[9], 604800) end
return {'OK', events, wake_lanes(KEYS[10], KEYS[11], touched, lane_ids, wakeable, now)}
