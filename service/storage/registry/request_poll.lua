-- include _clock
-- include _epochs
if redis.call('EXISTS', integration) == 0
  or (redis.call('HGET', integration, 'requested_id') or nil) ~= queued then
  return STALE
end
local stored = redis.call('HGET', integration, 'poll')
if joins then
  -- The progress changes with every page, so only its id is compared.
  if not stored or not string.find(stored, poll_id, 1, true) then return STALE end
  redis.call('HSET', integration, 'again', '1')
else
  if (stored and true or false) ~= under_way then return STALE end
  redis.call('HSET', integration, 'requested', kind, 'requested_id', poll_id)
  redis.call('HSET', polls, poll_id, poll)
  redis.call('ZADD', poll_order, 'NX', now_ms(), poll_id)
end
wake_poll(schedule, id)
