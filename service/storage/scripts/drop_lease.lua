-- Gives back something that is not to be worked on, due again after a while or not at all.
--
-- KEYS  1 due  2 claimed  3 lease
-- ARGV  1 id  2 lease token  3 ms until due or ''
-- Result 1 if the lease was ours, else 0
if redis.call('GET', KEYS[3]) ~= ARGV[2] then return 0 end
redis.call('DEL', KEYS[3])
redis.call('ZREM', KEYS[2], ARGV[1])
if ARGV[3] ~= '' then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('ZADD', KEYS[1], string.format('%.0f', now + tonumber(ARGV[3])), ARGV[1])
end
return 1
