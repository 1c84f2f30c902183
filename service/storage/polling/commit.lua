-- include _clock
-- include _positions
-- include _events
-- include _states
local AT_ONCE = 5000 -- values that fit on Lua's stack

if redis.call('GET', lease.key) ~= lease.token then return LEASE end
if redis.call('HGET', integration, 'epoch') ~= epoch then
  redis.call('UNLINK', kept.seen, kept.waiting) -- the only keys left of that epoch
  return EPOCH
end
if (redis.call('HGET', integration, 'poll') or '') ~= progress_as_stored then return PROGRESS end
if tonumber(redis.call('GET', subscriptions_version) or '0') ~= version then
  return SUBSCRIPTIONS
end

-- The known state of expected courses that are not live, or have other digests.
local function find_differing()
  local ids, at, found = {}, 1, {}
  for index, length in ipairs(expected.lengths) do
    ids[index] = string.sub(expected.course_ids, at, at + length - 1)
    at = at + length
  end
  for start = 1, #ids, AT_ONCE do
    local stop = math.min(start + AT_ONCE - 1, #ids)
    local known = redis.call('HMGET', kept.catalogue, unpack(ids, start, stop))
    for index = start, stop do
      local one, last = known[index - start + 1], RAW_BYTES * index
      if not one or string.sub(one, FLAG, FLAG) ~= LIVE or string.sub(one, RAW_FIRST, RAW_LAST)
        ~= string.sub(expected.digests, last - RAW_BYTES + 1, last) then
        found[#found + 1] = differing {index = index, packed = one}
      end
    end
  end
  return found
end

if expected then
  local found = find_differing()
  if #found > 0 then return committed {events = 0, outboxes_woken = 0, refused = found} end
end

-- A write that may grow comes first: at the memory limit Redis then refuses the whole commit.
redis.call('HSET', integration, 'poll', progress)
local now = now_ms()
local live, appended, entered, quarantined = 0, 0, 0, 0
local any_quarantined = redis.call('EXISTS', kept.quarantine) == 1

-- Appends an event and puts it on its outboxes; returns its id.
local function append(event, course, sequence, previous)
  local position, id = append_event(log, {
    type = event.type, integration = integration_id, course = course, suffix = event.suffix,
    sequence = sequence, previous = previous, facts = event.facts, body = event.body,
  })
  appended = appended + 1
  entered = entered + enter_outboxes(outboxes, event.targets, position, event.order_key)
  return id
end

for _, change in ipairs(changes) do
  local course = change.course_id
  if change.problem then
    quarantined = quarantined + redis.call('HSET', kept.quarantine, course, change.problem)
    -- The next received bytes are compared, even if they equal earlier ones.
    local known = redis.call('HGET', kept.catalogue, course)
    if known then
      redis.call('HSET', kept.catalogue, course,
        string.sub(known, 1, RAW_FIRST - 1) .. NO_RAW .. string.sub(known, RAW_LAST + 1))
    end
  else
    local sequence, event = change.sequence, change.last_event
    if change.event then
      sequence = math.max(sequence + 1, now)
      event = append(change.event, course, sequence, change.sequence)
    end
    redis.call('HSET', kept.catalogue, course,
      change.head .. string.format(SEQUENCE_FORMAT, sequence) .. event .. change.tail)
    live = live + change.live
    if any_quarantined then
      quarantined = quarantined - redis.call('HDEL', kept.quarantine, course)
    end
  end
end

-- Counts a withheld change in the review: by kind, and an update by the number of each path.
local function tally(withheld, by)
  local kind = string.sub(withheld, 1, 1)
  redis.call('HINCRBY', kept.review, kind, by)
  if kind ~= UPDATE then return end
  for at = PATHS_FIRST, #withheld, PATH_BYTES do
    redis.call('HINCRBY', kept.review, 'path' .. string.byte(withheld, at), by)
  end
end

local held, review_changed = 0, false
for _, mark in ipairs(marks) do
  local course, operation, withheld = mark.course_id, mark.operation, mark.withheld
  if operation == 'wait' then
    redis.call('HSET', kept.waiting, course, withheld)
  elseif operation == 'absolve' then
    redis.call('HDEL', kept.waiting, course)
  elseif operation == 'forget' then
    quarantined = quarantined - redis.call('HDEL', kept.quarantine, course)
  elseif operation == 'decided' then
    held = held - redis.call('HDEL', kept.decided, course)
  else
    local known = redis.call('HGET', kept.held, course)
    if operation == 'release' then
      if known then
        redis.call('HDEL', kept.held, course)
        tally(known, -1)
        held, review_changed = held - 1, true
      end
    elseif withheld ~= known and (known or operation == 'hold') then
      if redis.call('HSETNX', kept.review, 'since', now) == 1 and opening then
        append(opening, '', 0, 0)
        redis.call('HINCRBY', counters, 'events_total|' .. opening.type, 1)
      end
      if known then tally(known, -1) else held = held + 1 end
      redis.call('HSET', kept.held, course, withheld)
      tally(withheld, 1)
      review_changed = true
    end
    if operation == 'hold' then redis.call('HDEL', kept.waiting, course) end
  end
end
if review_changed then
  if redis.call('EXISTS', kept.held) == 0 then
    redis.call('DEL', kept.review)
  else
    if exceeded then redis.call('HSET', kept.review, 'exceeded', exceeded) end
    -- It follows the clock, so that a server that lost its last second reuses none.
    local review_version = tonumber(redis.call('HGET', kept.review, 'version') or '0')
    redis.call('HSET', kept.review, 'version', math.max(review_version + 1, now))
  end
end
if held ~= 0 then
  redis.call('HINCRBY', integration, 'held', held)
  redis.call('HINCRBY', totals, 'held', held)
  count_state(integration, totals)
end
if redis.call('EXISTS', kept.decided) == 0 then redis.call('HDEL', integration, 'decision') end

if live ~= 0 then
  redis.call('HINCRBY', integration, 'course_count', live)
  redis.call('HINCRBY', totals, 'courses', live)
end
if quarantined ~= 0 then
  redis.call('HINCRBY', integration, 'quarantined', quarantined)
  redis.call('HINCRBY', totals, 'quarantined', quarantined)
end
if seen_digests then redis.call('APPEND', kept.seen, seen_digests) end
-- With every commit, because a poll may wait repeatedly.
redis.call('EXPIRE', kept.seen, kept_seconds)
redis.call('EXPIRE', kept.waiting, kept_seconds)
if entered ~= 0 then redis.call('HINCRBY', totals, 'pending', entered) end
for counter, increment in pairs(increments) do
  redis.call('HINCRBY', counters, counter, increment)
end
if next(increments) then redis.call('EXPIRE', counters, COUNTERS_SECONDS) end
return committed {
  events = appended, outboxes_woken = wake_outboxes(schedule, outboxes, now), refused = {},
}
