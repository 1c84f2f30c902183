-- include _clock
-- include _budgets
local SAME_WINDOW = 1500 -- ms by which its end may differ, because it is given in seconds
local AFTERWARDS = 60000 -- ms for which a budget is kept after all of its times have passed

local now = now_ms()
local known = budget_of(budget)
local hold, reset = known.hold, known.reset_at
if hold_ms > 0 then
  hold = math.max(hold, now + hold_ms)
  redis.call('HSET', budget, 'hold', hold)
end
if ends_ms then
  local ends, window = now + ends_ms, known.window
  limit = limit or math.max(known.limit, remaining)
  if reset > now and math.abs(ends - reset) < SAME_WINDOW then
    -- This count already includes requests in flight, and the upstream's does not yet.
    if known.counted then remaining = math.min(remaining, known.remaining) end
  else
    window = ends_ms
  end
  reset = ends
  redis.call('HSET', budget, 'limit', limit, 'remaining', remaining, 'reset_at', reset,
    'window', window)
end
local last = math.max(hold, reset, known.line, known.again, now)
redis.call('PEXPIRE', budget, last - now + AFTERWARDS)
