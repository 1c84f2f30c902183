-- Shared by the scripts that read the clock.

-- Redis time in ms
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
