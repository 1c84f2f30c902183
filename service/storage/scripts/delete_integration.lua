-- include _epochs
-- include _states
-- Deletes an integration with all that is kept of it. Work under way loses its lease.
--
-- KEYS  1 integration  2 integrations  3 upstreams  4 credential  5 totals  6 due walks
--       7 claimed walks  8 lease  9 completed deltas  10 completed sweeps  11 overdue walks
--       12.. its walks, walk order, and what is kept of its epoch
-- ARGV  1 id  2 record as read  3 epoch as read  4 upstream  5 the credential's record as read
-- Result {'OK'} or {'STALE'}
if redis.call('HGET', KEYS[1], 'record') ~= ARGV[2]
  or redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[3]
  or redis.call('HGET', KEYS[4], 'record') ~= ARGV[5] then
  return {'STALE'}
end
for _, key in ipairs({KEYS[2], KEYS[6], KEYS[7], KEYS[9], KEYS[10], KEYS[11]}) do
  redis.call('ZREM', key, ARGV[1])
end
redis.call('HDEL', KEYS[3], ARGV[4])
leave_totals(KEYS[1], KEYS[5])
uncount_state(KEYS[1], KEYS[5])
redis.call('HINCRBY', KEYS[4], 'uses', -1)
redis.call('UNLINK', KEYS[1], KEYS[8])
for key = 12, #KEYS do redis.call('UNLINK', KEYS[key]) end
return {'OK'}
