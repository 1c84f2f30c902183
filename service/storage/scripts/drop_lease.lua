-- Gives back something that is not to be worked on, due again at a given time or not at all.
--
-- KEYS  1 due  2 claimed  3 lease
-- ARGV  1 id  2 lease token  3 due ms or ''
-- Result 1 if the lease was ours, else 0
if redis.call('GET', KEYS[3]) ~= ARGV[2] then return 0 end
redis.call('DEL', KEYS[3])
redis.call('ZREM', KEYS[2], ARGV[1])
if ARGV[3] ~= '' then redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1]) end
return 1
