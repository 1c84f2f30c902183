-- include _clock
-- include _subscriptions
-- Revokes an API key. What it owns stays, and gets no more events.
--
-- KEYS  1 API key  2 API keys  3 subscriptions version
-- ARGV  1 id
-- Result 1, or 0 if there is none
if redis.call('DEL', KEYS[1]) == 0 then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
bump_version(KEYS[3])
return 1
