-- include _dead
-- Nothing is given up before it happens.
local found = redis.call('ZRANGEBYSCORE', dead.listed, '-inf', before, 'LIMIT', passed_over, most)
local gone = 0
for _, position in ipairs(found) do
  local died = string.match(redis.call('HGET', dead.facts, position) or '0', '^%d+')
  if tonumber(died) < before then gone = gone + unlist_dead(dead, position) end
end
if gone > 0 then redis.call('HINCRBY', totals, 'dead', -gone) end
return trimmed_dead {looked_at = #found, gone = gone}
