-- Reads all subscriptions, the API keys that may own them, and their version, at one moment.
--
-- KEYS  1 version  2 subscriptions  3 API keys
-- ARGV  1 what precedes the id in a subscription's key  2 in an API key's
-- Result {version, records of the subscriptions in the order of creation, records of the keys}
local subscriptions, api_keys = {}, {}
for _, id in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  subscriptions[#subscriptions + 1] = redis.call('HGET', ARGV[1] .. id, 'record') or nil
end
for _, id in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
  api_keys[#api_keys + 1] = redis.call('HGET', ARGV[2] .. id, 'record') or nil
end
return {redis.call('GET', KEYS[1]) or '0', subscriptions, api_keys}
