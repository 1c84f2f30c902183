-- include _dead
-- Forgets dead deliveries that were given up before a time, those of the oldest events first, in
-- steps.
--
-- KEYS  1 dead  2 dead facts  3 totals
-- ARGV  1 ms before which they were given up  2 how many to pass over  3 most looked at
-- Result {looked at, gone}
-- Nothing is given up before it happens.
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', ARGV[2], ARGV[3])
local gone = 0
for _, position in ipairs(found) do
  local died = string.match(redis.call('HGET', KEYS[2], position) or '0', '^%d+')
  if tonumber(died) < tonumber(ARGV[1]) then
    gone = gone + unlist_dead(KEYS[1], KEYS[2], position)
  end
end
if gone > 0 then redis.call('HINCRBY', KEYS[3], 'dead', -gone) end
return {#found, gone}
