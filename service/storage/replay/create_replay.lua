-- include _clock
-- include _positions
if redis.call('EXISTS', subscription) == 0 then return GONE end
local now = now_ms()
if only then
  redis.call('HSET', replay, 'record', record, 'state', 'running', 'created_at', now,
    'started_at', now, 'fed', '1', 'scanned', '1', 'queued', '1', 'position', only.position, 'only', '1')
  local queue_position = redis.call('XADD', replayed, '*', 'k', only.order_key,
    'r', only.rendering, 'p', only.position, 'i', id)
  redis.call('ZADD', replayed_order, 0, sort_key(only.position) .. queue_position)
else
  redis.call('HSET', replay, 'record', record, 'state', 'queued', 'created_at', now)
  redis.call('RPUSH', replay_queue, id)
end
redis.call('ZADD', replays, now, id)
redis.call('HINCRBY', totals, 'replays', 1)
local surplus = redis.call('ZCARD', replays) - kept
if surplus > 0 then
  for _, oldest in ipairs(redis.call('ZRANGE', replays, 0, surplus - 1)) do
    if redis.call('HEXISTS', replay_prefix .. oldest, 'finished_at') == 1 then
      redis.call('UNLINK', replay_prefix .. oldest)
      redis.call('ZREM', replays, oldest)
    end
  end
end
-- A running sender finds the replay when it returns the outbox.
if not redis.call('ZSCORE', schedule.claimed, subscription_id) then
  redis.call('ZADD', schedule.due, 'LT', now, subscription_id)
end
