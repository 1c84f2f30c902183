-- Shared by the scripts that append events: event ids, the log, lanes and waking them.

local ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz'

-- number -> base 32, `length` characters
local function base32(number, length)
  local text = ''
  for _ = 1, length do
    local rest = number % 32
    text = string.sub(ALPHABET, rest + 1, rest + 1) .. text
    number = (number - rest) / 32
  end
  return text
end

-- Appends one event; returns its position and the 26 characters of its id.
local function append_event(log, event)
  local position = redis.call('XADD', log, '*', 't', event.type, 'i', event.integration,
    'c', event.course, 'x', event.suffix, 's', event.sequence, 'p', event.previous,
    'm', event.facts, 'b', event.body)
  local ms, counter = string.match(position, '^(%d+)-(%d+)$')
  return position, base32(tonumber(ms), 10) .. base32(tonumber(counter), 4) .. event.suffix
end

-- Puts an event on the lanes that `targets` names ("2f,5t": index of the lane, rendering);
-- marks those lanes in `touched` and returns how many there were.
local function enter_lanes(lane_keys, touched, targets, position, order_key)
  local entered = 0
  for index, rendering in string.gmatch(targets, '(%d+)(%a)') do
    local lane = tonumber(index)
    redis.call('XADD', lane_keys[lane], position, 'k', order_key, 'r', rendering)
    touched[lane] = true
    entered = entered + 1
  end
  return entered
end

-- Makes the touched lanes due now, unless somebody is at work on them or they are not sent to.
local function wake_lanes(due, claimed, touched, lane_ids, wakeable, now)
  local woken = 0
  for lane, _ in pairs(touched) do
    if wakeable[lane] == '1' and not redis.call('ZSCORE', claimed, lane_ids[lane]) then
      redis.call('ZADD', due, 'LT', now, lane_ids[lane])
      woken = woken + 1
    end
  end
  return woken
end
