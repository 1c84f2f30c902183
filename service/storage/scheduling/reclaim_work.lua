-- include _clock
local now, reclaimed = now_ms(), 0
for _, one in ipairs(work) do
  local token = redis.call('GET', one.lease)
  local score = redis.call('ZSCORE', schedule.claimed, one.id)
  local unbegun = not token and tonumber(score) == one.claim
  local abandoned = token and string.sub(token, 1, #holder) == holder
  if score and (unbegun or abandoned) then
    redis.call('DEL', one.lease)
    redis.call('ZREM', schedule.claimed, one.id)
    redis.call('ZADD', schedule.due, now, one.id)
    reclaimed = reclaimed + 1
  end
end
return reclaimed
