-- include _clock
-- include _epochs
if redis.call('EXISTS', integration) == 0
  or (redis.call('HGET', integration, 'requested_id') or nil) ~= queued then
  return STALE
end
local stored = redis.call('HGET', integration, 'walk')
if joins then
  -- It moves on with every page, so only its id counts.
  if not stored or not string.find(stored, walk_id, 1, true) then return STALE end
  redis.call('HSET', integration, 'again', '1')
else
  if (stored and true or false) ~= under_way then return STALE end
  redis.call('HSET', integration, 'requested', kind, 'requested_id', walk_id)
  redis.call('HSET', walks, walk_id, walk)
  redis.call('ZADD', walk_order, 'NX', now_ms(), walk_id)
end
wake_walk(schedule, id)
