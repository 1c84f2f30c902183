-- Takes one request from a credential's budget, or a place in the line of those who wait.
--
-- KEYS  1 budget
-- ARGV  1 'delta' or 'sweep'  2 the place given before (ms), 0 if none
-- Result {0, 0} if the request may be sent, else {ms to wait, place}
local RESERVED = 0.25 -- of a window, which sweeps leave to deltas
local PACE = 200 -- ms between places where the limit is not known
local WINDOW = 60000 -- ms that a window is taken to last; it is not published

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = redis.call('HMGET', KEYS[1], 'hold', 'reset_at', 'remaining', 'limit', 'line')
local hold, reset, remaining = tonumber(known[1] or 0), tonumber(known[2] or 0), tonumber(known[3] or 0)
local limit, line = tonumber(known[4] or 0), tonumber(known[5] or 0)
local place, sweep = tonumber(ARGV[2]), ARGV[1] == 'sweep'

local free_at = 0
if hold > now then
  free_at = hold
elseif reset > now and remaining <= (sweep and math.floor(limit * RESERVED) or 0) then
  free_at = reset
end
-- Who has waited goes when it is their turn. A newcomer does not pass the line, but a delta
-- may while the window has room, for the line is then one of sweeps.
local in_turn = place > 0 and place <= now
local passes = line <= now or (not sweep and reset > now)
if free_at == 0 and (in_turn or passes) then
  if reset > now then redis.call('HINCRBY', KEYS[1], 'remaining', -1) end
  return {0, 0}
end
local pace = limit > 0 and math.ceil(WINDOW / limit) or PACE
local at = math.max(free_at, line, now) + pace
redis.call('HSET', KEYS[1], 'line', string.format('%.0f', at))
redis.call('PEXPIRE', KEYS[1], math.max(at, hold, reset) - now + WINDOW)
return {at - now, at}
