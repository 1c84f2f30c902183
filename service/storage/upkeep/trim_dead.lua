-- include _dead
-- include _positions
-- A delivery cannot die before its event.
local last = '(' .. sort_key(string.format('%.0f-0', before))
local found = redis.call('ZRANGE', dead.listed, '-', last, 'BYLEX', 'LIMIT', passed_over, most)
local gone = 0
for _, sorted in ipairs(found) do
  local died = string.match(redis.call('HGET', dead.facts, sorted) or '0', '^%d+')
  if tonumber(died) < before then gone = gone + unlist_dead(dead, sorted) end
end
if gone > 0 then redis.call('HINCRBY', totals, 'dead', -gone) end
return trimmed_dead {looked_at = #found, gone = gone}
