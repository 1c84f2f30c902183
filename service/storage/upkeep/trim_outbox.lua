-- include _clock
-- include _dead
-- include _entries
-- include _positions
-- include _failing
local now, listed = now_ms(), 0
local gone = redis.call('XRANGE', live.stream, '-', '(' .. before, 'COUNT', most)
for _, entry in ipairs(gone) do
  local position, fields = entry[1], fields_of(entry)
  redis.call('XDEL', live.stream, position)
  local attempts = forget_failing(live, fields.k, position) or '0'
  listed = listed + list_dead(dead, sort_key(position), now, attempts, fields.r, fields.k, reason)
  note_dead(dead, position, fields.k, reason)
end
if #gone > 0 then
  redis.call('HDEL', outbox_state, 'cursor')
  redis.call('HINCRBY', totals, 'pending', -#gone)
  redis.call('HINCRBY', totals, 'dead', listed)
  redis.call('HINCRBY', counters, counter, #gone)
  redis.call('EXPIRE', counters, COUNTERS_SECONDS)
end
return #gone
