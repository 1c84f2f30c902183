-- include _clock
-- include _positions
-- include _replays
if redis.call('GET', lease.key) ~= lease.token then return LEASE end
if redis.call('LINDEX', replay_queue, 0) ~= id
  or (redis.call('HGET', replay, 'position') or '') ~= position_as_read then return STALE end
if redis.call('XLEN', replayed) >= most then return FULL end

local now = now_ms()
-- A write that may grow comes first: at the memory limit Redis then refuses all of it.
redis.call('HSET', replay, 'position', position)
redis.call('HSETNX', replay, 'started_at', now)
redis.call('HSET', replay, 'state', 'running')
for _, entry in ipairs(entries) do
  local event, at = entry.event, entry.position
  if event then
    -- In the log's form, so that it is read and rendered like any other.
    at = backfilled_position(redis.call('XADD', backfilled, '*', 't', event.type,
      'i', event.integration_id, 'c', event.course_id, 'x', event.suffix, 's', event.sequence,
      'p', '0', 'm', event.facts, 'b', event.body))
  end
  local queue_position = redis.call('XADD', replayed, '*', 'k', entry.order_key,
    'r', entry.rendering, 'p', at, 'i', id)
  redis.call('ZADD', replayed_order, 0, sort_key(at) .. queue_position)
end
redis.call('HINCRBY', replay, 'scanned', scanned)
redis.call('HINCRBY', replay, 'queued', #entries)
redis.call('HINCRBY', replay, 'left_out', left_out)
for counter, increment in pairs(increments) do
  redis.call('HINCRBY', counters, counter, increment)
  redis.call('EXPIRE', counters, COUNTERS_SECONDS)
end
if note ~= '' then redis.call('HSET', replay, 'error', note) end
if failure ~= '' then
  redis.call('HSET', replay, 'error', failure, 'state', 'failed', 'finished_at', now)
  redis.call('HINCRBY', totals, 'replays', -1)
  redis.call('LPOP', replay_queue)
elseif last then
  redis.call('HSET', replay, 'fed', '1')
  redis.call('LPOP', replay_queue)
  complete_replay(replay, totals, now)
end
