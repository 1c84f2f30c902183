-- include _clock
-- include _subscriptions
if redis.call('HGET', api_key, 'record') ~= (as_read or false) then return STALE end
redis.call('HSET', api_key, 'record', record)
if digest then
  if previous_until then
    redis.call('HSET', api_key, 'previous_digest', redis.call('HGET', api_key, 'digest'),
      'previous_until', previous_until)
  else
    redis.call('HDEL', api_key, 'previous_digest', 'previous_until')
  end
  redis.call('HSET', api_key, 'digest', digest)
end
if as_read then
  bump_version(subscriptions_version)
else
  redis.call('ZADD', api_keys, created_at, id)
end
