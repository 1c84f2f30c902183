-- include _epochs
-- Queues a walk that was asked for, or joins the one under way, and makes it due now. The walk
-- after one that was joined follows it at once, for what it may have passed by already.
--
-- KEYS  1 integration  2 walks  3 walk order  4 due walks  5 claimed walks
-- ARGV  1 id  2 id of the walk queued as read, '' if none  3 walk under way as read, '' if none
--       4 'join' or 'queue'  5 kind  6 walk id  7 walk JSON
-- Result 'OK' or 'STALE'
if redis.call('EXISTS', KEYS[1]) == 0
  or (redis.call('HGET', KEYS[1], 'requested_id') or '') ~= ARGV[2] then
  return 'STALE'
end
local under_way = redis.call('HGET', KEYS[1], 'walk') or ''
if ARGV[4] == 'join' then
  -- It moves on with every page, so only its id counts.
  if not string.find(under_way, ARGV[6], 1, true) then return 'STALE' end
  redis.call('HSET', KEYS[1], 'again', '1')
else
  if (under_way == '') ~= (ARGV[3] == '') then return 'STALE' end
  redis.call('HSET', KEYS[1], 'requested', ARGV[5], 'requested_id', ARGV[6])
  redis.call('HSET', KEYS[2], ARGV[6], ARGV[7])
  redis.call('ZADD', KEYS[3], 'NX', now_text(), ARGV[6])
end
wake_walk(KEYS[4], KEYS[5], ARGV[1])
return 'OK'
