-- Deletes a credential that no integration uses.
--
-- KEYS  1 credential  2 credentials
-- ARGV  1 id  2 record as read, '' if it may be any
-- Result integrations that use it; it is deleted if 0, was not there if -1, and is no longer as
--        read if -2
if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
if ARGV[2] ~= '' and redis.call('HGET', KEYS[1], 'record') ~= ARGV[2] then return -2 end
local uses = tonumber(redis.call('HGET', KEYS[1], 'uses') or '0')
if uses > 0 then return uses end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('DEL', KEYS[1])
return 0
