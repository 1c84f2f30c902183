-- include _clock
local SILENT = 30000 -- ms after which a scheduler is removed at another one's turn
local KEPT_SECONDS = 604800 -- lifetime of the list of schedulers after the last turn

local now = now_ms()
local token = now + claim_ms
local result = {}
-- A removal comes first, so that it runs even when Redis is at its memory limit.
if scheduler then redis.call('ZREMRANGEBYSCORE', schedulers, '-inf', now - SILENT) end
for index, kind in ipairs(kinds) do
  local schedule, ids = kind.schedule, {}
  local paused = redis.call('HEXISTS', control, kind.activity) == 1
  if not paused and redis.call('LLEN', kind.queue) < kind.bound then
    local lapsed = redis.call(
      'ZRANGEBYSCORE', schedule.claimed, '-inf', now, 'LIMIT', 0, kind.most, 'WITHSCORES')
    for at = 1, #lapsed, 2 do
      local id, since = lapsed[at], lapsed[at + 1]
      redis.call('ZREM', schedule.claimed, id)
      redis.call('ZADD', schedule.due, 'LT', now, id)
      redis.call('ZADD', schedule.overdue, 'NX', since, id)
    end
    ids = redis.call('ZRANGEBYSCORE', schedule.due, '-inf', now, 'LIMIT', 0, kind.most)
    for _, id in ipairs(ids) do
      redis.call('ZREM', schedule.due, id)
      redis.call('ZADD', schedule.claimed, token, id)
    end
  end
  local workers = #ids > 0 and #redis.call('SMEMBERS', kind.workers) or 0
  result[index] = claims {token = token, ids = ids, workers = workers}
end
if scheduler then
  redis.call('ZADD', schedulers, now, scheduler)
  redis.call('EXPIRE', schedulers, KEPT_SECONDS)
end
return result
