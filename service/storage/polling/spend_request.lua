-- include _clock
-- include _budgets
local RESERVED = 0.25 -- of a window, which full polls leave to deltas
local PACE = 200 -- ms between slots where the limit is not known
local WINDOW = 60000 -- assumed maximum length of a window in ms, before the upstream reports its end

local now = now_ms()
local known = budget_of(budget)
local hold, reset, remaining, limit = known.hold, known.reset_at, known.remaining, known.limit
local window, line, again, deltas = known.window, known.line, known.again, known.deltas
local full_poll = kind == 'full'

-- Until its first response, a window is assumed to equal the previous one, so that polls that
-- arrive together at its start do not send too many requests.
if hold <= now and reset > 0 and reset <= now and limit > 0 then
  reset, remaining = now + math.min(window, WINDOW), limit
  redis.call('HSET', budget, 'remaining', remaining, 'reset_at', reset)
  redis.call('PEXPIRE', budget, math.max(reset, line, again) - now + WINDOW)
end
local free_at = 0
if hold > now then
  free_at = hold
elseif reset > now and remaining <= (full_poll and math.floor(limit * RESERVED) or 0) then
  free_at = reset
end
-- A waiting poll is sent at its turn. A newcomer does not overtake the queue, but a delta overtakes
-- full polls while the window has room.
local in_turn = slot > 0 and slot <= now
local passes = math.max(line, again) <= now or (not full_poll and deltas <= now and reset > now)
if free_at == 0 and (in_turn or passes) then
  if reset > now then redis.call('HINCRBY', budget, 'remaining', -1) end
  return place_in_line {wait_ms = 0, at = 0}
end
local pace = limit > 0 and math.ceil(window / limit) or PACE
if not waits then
  return place_in_line {wait_ms = math.max(free_at, line, again, now) + pace - now, at = 0}
end
local at
if slot > now and slot > free_at then
  return place_in_line {wait_ms = slot - now, at = slot} -- woken early: the slot is kept
elseif in_turn then
  -- It waited in vain. At the end of the queue that could repeat forever, if its turn always comes
  -- at the same point of a window: so it is among the first of the next window.
  at = math.max(free_at, again) + pace
  redis.call('HSET', budget, 'again', at)
else
  at = math.max(free_at, line, again, now) + pace
  redis.call('HSET', budget, 'line', at)
end
if not full_poll then
  redis.call('HSET', budget, 'deltas', math.max(deltas, at))
end
redis.call('PEXPIRE', budget, math.max(at, hold, reset, line, again) - now + WINDOW)
return place_in_line {wait_ms = at - now, at = at}
