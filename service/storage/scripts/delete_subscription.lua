-- include _clock
-- include _subscriptions
-- Deletes a subscription with its lane and all that is kept of it. Work under way loses its
-- lease.
--
-- KEYS  1 subscription  2 subscriptions  3 version  4 lane  5 dead  6 totals  7 due lanes
--       8 claimed lanes  9 lease  10 overdue lanes  11 replays  12.. its state, retries, failing,
--       dead facts, untold, attempts, and what is replayed, with its retries, failing and queue, and what was backfilled
-- ARGV  1 id  2 record as read, '' if it may be any  3 what precedes the id in a replay's key
-- Result 1, 0 if there is none, or -1 if it is no longer as read
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
if ARGV[2] ~= '' and redis.call('HGET', KEYS[1], 'record') ~= ARGV[2] then return -1 end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[7], ARGV[1])
redis.call('ZREM', KEYS[8], ARGV[1])
redis.call('ZREM', KEYS[10], ARGV[1])
local pending, dead = redis.call('XLEN', KEYS[4]), redis.call('ZCARD', KEYS[5])
uncount_lane(KEYS[12], KEYS[6])
local unfinished = 0
for _, replay in ipairs(redis.call('ZRANGE', KEYS[11], 0, -1)) do
  if redis.call('HEXISTS', ARGV[3] .. replay, 'finished_at') == 0 then
    unfinished = unfinished + 1
  end
  redis.call('UNLINK', ARGV[3] .. replay)
end
redis.call('UNLINK', KEYS[1], KEYS[4], KEYS[5], KEYS[9])
for key = 11, #KEYS do redis.call('UNLINK', KEYS[key]) end
if pending ~= 0 then redis.call('HINCRBY', KEYS[6], 'pending', -pending) end
if dead ~= 0 then redis.call('HINCRBY', KEYS[6], 'dead', -dead) end
if unfinished ~= 0 then redis.call('HINCRBY', KEYS[6], 'replays', -unfinished) end
bump_version(KEYS[3])
return 1
