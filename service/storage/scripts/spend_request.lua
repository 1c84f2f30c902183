-- Takes one request from a credential's budget, or a place in the line of those who wait.
--
-- KEYS  1 budget
-- ARGV  1 'delta' or 'sweep'  2 the place given before (ms), 0 if none
-- Result {0, 0} if the request may be sent, else {ms to wait, place}
local RESERVED = 0.25 -- of a window, which sweeps leave to deltas
local PACE = 200 -- ms between places where the limit is not known
local WINDOW = 60000 -- ms that a window is taken to last at most, before it says so itself

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = redis.call('HMGET', KEYS[1],
  'hold', 'reset_at', 'remaining', 'limit', 'window', 'line', 'again', 'deltas')
for at = 1, 8 do known[at] = tonumber(known[at] or 0) end
local hold, reset, remaining, limit, window, line, again, deltas = unpack(known)
local place, sweep = tonumber(ARGV[2]), ARGV[1] == 'sweep'

-- The window after one that has ended is taken for another like it until its first answer, so
-- that those who come together at its beginning do not send more than it holds.
if hold <= now and reset > 0 and reset <= now and limit > 0 then
  reset, remaining = now + math.min(window, WINDOW), limit
  redis.call('HSET', KEYS[1], 'remaining', remaining, 'reset_at', string.format('%.0f', reset))
  redis.call('PEXPIRE', KEYS[1], math.max(reset, line, again) - now + WINDOW)
end
local free_at = 0
if hold > now then
  free_at = hold
elseif reset > now and remaining <= (sweep and math.floor(limit * RESERVED) or 0) then
  free_at = reset
end
-- Who has waited goes when it is their turn. A newcomer does not pass the line, but a delta
-- passes one of sweeps while the window has room.
local in_turn = place > 0 and place <= now
local passes = math.max(line, again) <= now or (not sweep and deltas <= now and reset > now)
if free_at == 0 and (in_turn or passes) then
  if reset > now then redis.call('HINCRBY', KEYS[1], 'remaining', -1) end
  return {0, 0}
end
local pace = limit > 0 and math.ceil(window / limit) or PACE
local at
if place > now and place > free_at then
  return {place - now, place} -- woken early: the place is kept
elseif in_turn then
  -- It waited for nothing. At the end of the line that could go on for ever, where turns come
  -- round at the same point of each window: so it is among the first of the next.
  at = math.max(free_at, again) + pace
  redis.call('HSET', KEYS[1], 'again', string.format('%.0f', at))
else
  at = math.max(free_at, line, again, now) + pace
  redis.call('HSET', KEYS[1], 'line', string.format('%.0f', at))
end
if not sweep then
  redis.call('HSET', KEYS[1], 'deltas', string.format('%.0f', math.max(deltas, at)))
end
redis.call('PEXPIRE', KEYS[1], math.max(at, hold, reset, line, again) - now + WINDOW)
return {at - now, at}
