-- include _clock
-- include _subscriptions
if redis.call('HGET', api_key, 'record') ~= (as_read or false) then return STALE end
redis.call('HSET', api_key, 'record', record)
if digest then redis.call('HSET', api_key, 'digest', digest) end
if as_read then
  bump_version(subscriptions_version)
else
  redis.call('ZADD', api_keys, created_at, id)
end
