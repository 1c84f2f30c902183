-- include _epochs
-- Queues a walk that was asked for and makes it due now.
--
-- KEYS  1 integration  2 walks  3 walk order  4 due walks  5 claimed walks
-- ARGV  1 id  2 id of the walk queued as read, '' if none  3 kind  4 walk id  5 walk JSON
-- Result {'OK'} or {'STALE'}
if redis.call('EXISTS', KEYS[1]) == 0
  or (redis.call('HGET', KEYS[1], 'requested_id') or '') ~= ARGV[2]
  -- A walk that has begun is not joined, because it may have passed what the caller is after.
  or string.find(redis.call('HGET', KEYS[1], 'walk') or '', ARGV[4], 1, true) then
  return {'STALE'}
end
redis.call('HSET', KEYS[1], 'requested', ARGV[3], 'requested_id', ARGV[4])
redis.call('HSET', KEYS[2], ARGV[4], ARGV[5])
redis.call('ZADD', KEYS[3], 'NX', now_text(), ARGV[4])
wake_walk(KEYS[4], KEYS[5], ARGV[1])
return {'OK'}
