-- include _clock
local now = now_ms()
local ended = now - now % minute_ms
-- A removal comes first, so that all of this runs even when Redis is at its memory limit.
redis.call('ZREMRANGEBYSCORE', minutes, '-inf', ended - kept_ms)
local recorded = #redis.call('ZRANGEBYSCORE', minutes, ended, ended) == 0
if recorded then
  local counted = {}
  for _, name in ipairs(names) do counted[name] = {} end
  local stored = redis.call('HGETALL', counters)
  for at = 1, #stored, 2 do
    local name, labels = string.match(stored[at], '^([^|]*)|?(.*)$')
    if counted[name] then counted[name][labels] = tonumber(stored[at + 1]) end
  end
  -- An empty table would be packed as an array.
  for _, name in ipairs(names) do
    if not next(counted[name]) then counted[name] = nil end
  end

  local gauges = {}
  stored = redis.call('HGETALL', totals)
  for at = 1, #stored, 2 do
    if stored[at + 1] ~= '0' then gauges[stored[at]] = tonumber(stored[at + 1]) end
  end
  gauges.memory = tonumber(string.match(redis.call('INFO', 'memory'), 'used_memory:(%d+)'))
  local oldest = now
  for _, ids in ipairs({
    redis.call('ZRANGE', outboxes.due, 0, most - 1),
    redis.call('ZRANGE', outboxes.claimed, 0, most - 1),
  }) do
    for _, id in ipairs(ids) do
      local first = redis.call('XRANGE', outbox_prefix .. id, '-', '+', 'COUNT', 1)[1]
      if first then oldest = math.min(oldest, tonumber(string.match(first[1], '^%d+'))) end
    end
  end
  gauges.oldest_pending = (now - oldest) / 1000

  redis.call('ZADD', minutes, ended, cmsgpack.pack({
    at = now,
    run = string.sub(counters, -8),
    counters = next(counted) and counted,
    gauges = gauges,
  }))
  redis.call('PEXPIRE', minutes, kept_ms)
end
return minute_sampled {ended = ended, recorded = recorded, next_ms = ended + minute_ms - now}
