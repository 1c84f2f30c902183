-- Claims what is due, walks and lanes alike, unless that is paused or workers are behind: the one
-- command that an idle second costs.
--
-- KEYS  1 schedulers  2 control, then per kind: due, claimed, overdue, RQ queue
-- ARGV  1 claim ms  2 the scheduler whose turn it is, '' if none, then per kind: most to claim,
--       queue length from which nothing is claimed, what pausing it is called
-- Result per kind: claim token (ms at which the claim lapses), then the ids; as one list each
local SILENT = 30000 -- ms after which a scheduler is forgotten, once another has its turn

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local token = string.format('%.0f', now + tonumber(ARGV[1]))
local result = {}
-- A removal first, so that it runs even when Redis is at its memory limit.
if ARGV[2] ~= '' then redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - SILENT) end
for kind = 1, (#KEYS - 2) / 4 do
  local at = 4 * kind - 1
  local due, claimed, overdue, queue = KEYS[at], KEYS[at + 1], KEYS[at + 2], KEYS[at + 3]
  local most, bound = tonumber(ARGV[3 * kind]), tonumber(ARGV[3 * kind + 1])
  local claims = {token}
  local paused = redis.call('HEXISTS', KEYS[2], ARGV[3 * kind + 2]) == 1
  if not paused and redis.call('LLEN', queue) < bound then
    local lapsed = redis.call('ZRANGEBYSCORE', claimed, '-inf', now, 'LIMIT', 0, most, 'WITHSCORES')
    for index = 1, #lapsed, 2 do
      local id = lapsed[index]
      redis.call('ZREM', claimed, id)
      redis.call('ZADD', due, 'LT', now, id)
      redis.call('ZADD', overdue, 'NX', lapsed[index + 1], id)
    end
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, most)) do
      redis.call('ZREM', due, id)
      redis.call('ZADD', claimed, token, id)
      claims[#claims + 1] = id
    end
  end
  result[kind] = claims
end
if ARGV[2] ~= '' then
  redis.call('ZADD', KEYS[1], now, ARGV[2])
  redis.call('EXPIRE', KEYS[1], 604800)
end
return result
