-- Puts a sealed value in the place of another that says the same, unless it has been replaced
-- meanwhile. It begins with a removal, so that keys can be changed at the memory limit too.
--
-- KEYS  1 hash, or string
-- ARGV  1 field, '' of a string  2 what is there as read  3 what is to be there
-- Result 1 if that was done, else 0
if ARGV[1] ~= '' then
  if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
  redis.call('HDEL', KEYS[1], ARGV[1])
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
  return 1
end
if redis.call('GET', KEYS[1]) ~= ARGV[2] then return 0 end
local left = redis.call('PTTL', KEYS[1])
redis.call('DEL', KEYS[1])
if left > 0 then
  redis.call('SET', KEYS[1], ARGV[3], 'PX', left)
elseif left == -1 then
  redis.call('SET', KEYS[1], ARGV[3])
end
return 1
