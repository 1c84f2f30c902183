-- include _clock
-- include _credentials
-- include _states
if made then
  if redis.call('HEXISTS', by_values, made.mark .. ' ' .. made.base_url) == 1 then return STALE end
elseif redis.call('HGET', credential, 'record') ~= credential_as_read then
  return STALE
end
local existing = redis.call('HGET', upstreams, upstream)
if existing then return EXISTS .. ' ' .. existing end
if redis.call('ZCARD', integrations) >= most then return FULL end
redis.call('HSET', integration, 'record', record, 'epoch', epoch, 'paused', paused and '1' or '')
count_state(integration, totals)
redis.call('ZADD', integrations, created_at, id)
redis.call('HSET', upstreams, upstream, id)
if made then
  redis.call('HSET', credential, 'record', made.record, 'api_key', made.api_key)
  redis.call('ZADD', credentials, created_at, made.id)
  index_credential(credential, by_values, made.id, made.mark, made.base_url)
end
redis.call('HINCRBY', credential, 'uses', 1)
if not paused then redis.call('ZADD', schedule.due, now_ms(), id) end
