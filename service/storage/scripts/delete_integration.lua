-- include _epochs
-- Deletes an integration with all that is kept of it. Work under way loses its lease.
--
-- KEYS  1 integration  2 integrations  3 upstreams  4 credential  5 totals  6 due walks
--       7 claimed walks  8 lease  9.. its walks, walk order, and
--       what is kept of its epoch
-- ARGV  1 id  2 record as read  3 epoch as read  4 upstream  5 the credential's record as read
-- Result {'OK'} or {'STALE'}
if redis.call('HGET', KEYS[1], 'record') ~= ARGV[2]
  or redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[3]
  or redis.call('HGET', KEYS[4], 'record') ~= ARGV[5] then
  return {'STALE'}
end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[6], ARGV[1])
redis.call('ZREM', KEYS[7], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[4])
leave_totals(KEYS[1], KEYS[5])
redis.call('HINCRBY', KEYS[4], 'uses', -1)
redis.call('UNLINK', KEYS[1], KEYS[8])
for key = 9, #KEYS do redis.call('UNLINK', KEYS[key]) end
return {'OK'}
