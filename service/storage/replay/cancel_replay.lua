-- include _clock
-- include _entries
-- include _positions
-- include _failing
-- include _replays
local state = redis.call('HGET', replay, 'state')
if not state then return GONE end
if state ~= 'queued' and state ~= 'running' then return OVER end
redis.call('LREM', replay_queue, 1, id)
redis.call('HDEL', outbox_state, 'replayed_cursor')
for _, entry in ipairs(redis.call('XRANGE', replayed.stream, '-', '+')) do
  local queue_position, fields = entry[1], fields_of(entry)
  if fields.i == id then
    redis.call('XDEL', replayed.stream, queue_position)
    redis.call('ZREM', replayed_order, sort_key(fields.p) .. queue_position)
    forget_backfilled(backfilled, fields.p)
    forget_failing(replayed, fields.k, queue_position)
  end
end
redis.call('HSET', replay, 'state', 'cancelled', 'finished_at', now_ms())
redis.call('HSET', outbox_state, 'emptied', emptied)
redis.call('HINCRBY', totals, 'replays', -1)
