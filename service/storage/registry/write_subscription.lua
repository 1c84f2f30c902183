-- include _clock
-- include _subscriptions
if redis.call('HGET', subscription, 'record') ~= (as_read or false) then return STALE end
if not as_read and redis.call('ZCARD', subscriptions) >= most then return FULL end
if read_up_to and #redis.call('XRANGE', log, read_up_to, '+', 'COUNT', 1) > 0 then return BEHIND end
redis.call('HSET', subscription, 'record', record)
if not as_read then redis.call('HSET', subscription, 'begins', begins or now_ms()) end
if secrets then redis.call('HSET', subscription, 'secrets', secrets) end
if headers then redis.call('HSET', subscription, 'headers', headers) end
if without_certificate then
  redis.call('HDEL', subscription, 'client_certificate')
elseif client_certificate then
  redis.call('HSET', subscription, 'client_certificate', client_certificate)
end
redis.call('ZADD', subscriptions, created_at, id)
bump_version(subscriptions_version)
local pending = redis.call('XLEN', outbox)
if read_up_to and pending > 0 then
  redis.call('PERSIST', outbox)
  redis.call('HINCRBY', totals, 'pending', pending)
end
if state == 'paused' then
  redis.call('HSET', outbox_state, 'paused', '1')
else
  redis.call('HDEL', outbox_state, 'paused')
end
count_outbox(outbox_state, totals)
if state ~= 'active' then
  redis.call('ZREM', schedule.due, id)
elseif pending + redis.call('XLEN', replayed) + redis.call('LLEN', replay_queue) > 0
  and not redis.call('ZSCORE', schedule.claimed, id) then
  redis.call('ZADD', schedule.due, 'LT', now_ms(), id)
end
