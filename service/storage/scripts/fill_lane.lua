-- Puts retained events on the lane of a subscription that is about to be created. The lane has a
-- lifetime until then, so that nothing stays of a creation that breaks off.
--
-- KEYS  1 lane
-- ARGV  1 lifetime s  2 entries that the lane holds so far
--       then per entry 3: position, order key, rendering
-- Result 1, or 0 if the lane holds another number of entries
if redis.call('XLEN', KEYS[1]) ~= tonumber(ARGV[2]) then return 0 end
for at = 3, #ARGV, 3 do
  redis.call('XADD', KEYS[1], ARGV[at], 'k', ARGV[at + 1], 'r', ARGV[at + 2])
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1
