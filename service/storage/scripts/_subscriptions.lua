-- Shared by the scripts that change subscriptions: the version that snapshots are known by.

-- Redis time in ms
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Moves the version on. It follows the clock, so that a server that lost its last second does
-- not give the number of a lost edit to another one.
local function bump_version(key)
  local version = math.max(tonumber(redis.call('GET', key) or '0') + 1, now_ms())
  redis.call('SET', key, string.format('%.0f', version))
end
