-- include _clock
-- include _subscriptions
-- Stores a new or an edited API key, and the digest of its token if that is new. An edit moves the subscriptions' version on, because it may
-- change what the lanes of the key's subscriptions get.
--
-- KEYS  1 API key  2 API keys  3 subscriptions version
-- ARGV  1 id  2 created ms  3 record as read, '' if new  4 record  5 digest of the token, '' to keep it
-- Result 'OK', or 'STALE' if the record is no longer as read
if (redis.call('HGET', KEYS[1], 'record') or '') ~= ARGV[3] then return 'STALE' end
redis.call('HSET', KEYS[1], 'record', ARGV[4])
if ARGV[5] ~= '' then redis.call('HSET', KEYS[1], 'digest', ARGV[5]) end
if ARGV[3] == '' then
  redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
else
  bump_version(KEYS[3])
end
return 'OK'
