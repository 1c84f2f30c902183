-- include _clock
-- include _subscriptions
if redis.call('DEL', api_key) == 0 then return false end
redis.call('ZREM', api_keys, id)
bump_version(subscriptions_version)
return true
