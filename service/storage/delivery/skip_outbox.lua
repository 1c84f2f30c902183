-- include _entries
-- include _positions
-- include _failing
local gone = redis.call('XRANGE', live.stream, '-', last, 'COUNT', most)
if #gone == 0 then return 0 end
redis.call('HDEL', outbox_state, 'cursor')
for _, entry in ipairs(gone) do
  redis.call('XDEL', live.stream, entry[1])
  forget_failing(live, fields_of(entry).k, entry[1])
end
redis.call('HSET', outbox_state, 'emptied', emptied)
redis.call('HINCRBY', totals, 'pending', -#gone)
redis.call('HINCRBY', counters, counter, #gone)
redis.call('EXPIRE', counters, COUNTERS_SECONDS)
return #gone
