-- Forgets dead deliveries that are older than their retention.
--
-- KEYS  1 dead  2 totals
-- ARGV  1 id before which they go
-- Result how many went
local gone = redis.call('XTRIM', KEYS[1], 'MINID', ARGV[1])
if gone > 0 then redis.call('HINCRBY', KEYS[2], 'dead', -gone) end
return gone
