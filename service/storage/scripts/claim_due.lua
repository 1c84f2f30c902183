-- Claims what is due, walks and lanes alike, unless workers are behind: the one command that
-- an idle second costs.
--
-- KEYS  1 scheduler's last turn, then per kind: due, claimed, RQ queue
-- ARGV  1 claim ms, then per kind: most to claim, queue length from which nothing is claimed
-- Result per kind: claim token (ms at which the claim lapses), then the ids; as one list each
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local token = string.format('%.0f', now + tonumber(ARGV[1]))
local result = {}
-- A removal first, so that it runs even when Redis is at its memory limit.
if KEYS[1] ~= '' then redis.call('DEL', KEYS[1]) end
for kind = 1, (#KEYS - 1) / 3 do
  local due, claimed, queue = KEYS[3 * kind - 1], KEYS[3 * kind], KEYS[3 * kind + 1]
  local most, bound = tonumber(ARGV[2 * kind]), tonumber(ARGV[2 * kind + 1])
  local claims = {token}
  if redis.call('LLEN', queue) < bound then
    local lapsed = redis.call('ZRANGEBYSCORE', claimed, '-inf', now, 'LIMIT', 0, most)
    for _, id in ipairs(lapsed) do
      redis.call('ZREM', claimed, id)
      redis.call('ZADD', due, 'LT', now, id)
    end
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, most)) do
      redis.call('ZREM', due, id)
      redis.call('ZADD', claimed, token, id)
      claims[#claims + 1] = id
    end
  end
  result[kind] = claims
end
if KEYS[1] ~= '' then redis.call('SET', KEYS[1], now, 'EX', 30) end
return result
