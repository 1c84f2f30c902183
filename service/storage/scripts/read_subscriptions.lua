-- Reads all subscriptions and their version at one moment.
--
-- KEYS  1 version  2 subscriptions
-- ARGV  1 what precedes the id in a subscription's key
-- Result version, then the records in the order of creation
local result = {redis.call('GET', KEYS[1]) or '0'}
for _, id in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  result[#result + 1] = redis.call('HGET', ARGV[1] .. id, 'record') or nil
end
return result
