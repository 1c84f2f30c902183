-- Shared by the scripts that announce what they change, by operational events: the lanes that a
-- call names, and appending those events whose change came about. Needs _events.

local NOTICE = 7 -- type, suffix, facts, order key, targets, integration id, change announced

-- The `count` lanes of a call: their keys from KEYS[key] on; from ARGV[at] on their ids, each
-- with '1' if it may be woken.
local function lanes_of(count, key, at)
  local lanes = {keys = {}, ids = {}, wakeable = {}, touched = {}}
  for lane = 1, count do
    lanes.keys[lane] = KEYS[key + lane - 1]
    lanes.ids[lane] = ARGV[at + 2 * lane - 2]
    lanes.wakeable[lane] = ARGV[at + 2 * lane - 1]
  end
  return lanes
end

-- Appends those of `count` events, from ARGV[at] on, whose change is in `happened` or is ''; puts
-- them on their lanes and counts them.
local function announce(count, at, happened, log, lanes, totals, counters)
  local entered, appended = 0, 0
  for first = at, at + NOTICE * (count - 1), NOTICE do
    if ARGV[first + 6] == '' or happened[ARGV[first + 6]] then
      local position = append_event(log, {
        type = ARGV[first], integration = ARGV[first + 5], course = '', suffix = ARGV[first + 1],
        sequence = '0', previous = '0', facts = ARGV[first + 2], body = '',
      })
      appended = appended + 1
      entered = entered + enter_lanes(
        lanes.keys, lanes.touched, ARGV[first + 4], position, ARGV[first + 3])
      redis.call('HINCRBY', counters, 'events_total|' .. ARGV[first], 1)
    end
  end
  if entered ~= 0 then redis.call('HINCRBY', totals, 'pending', entered) end
  if appended ~= 0 then redis.call('EXPIRE', counters, 604800) end
  return appended
end
