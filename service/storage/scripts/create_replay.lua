-- include _clock
-- include _subscriptions
-- Stores a replay and queues it, or puts the one event that it is of at the end of what is being
-- replayed. The oldest that have ended are forgotten beyond a number.
--
-- KEYS  1 subscription  2 replays  3 replay  4 replay queue  5 replayed  6 totals  7 due lanes
--       8 claimed lanes
-- ARGV  1 subscription id  2 replay id  3 record JSON  4 most kept  5 what precedes the id in a
--       replay's key
--       then for one event: order key, rendering, position in the log
-- Result 1, or 0 if there is no such subscription
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local now = now_ms()
local at = string.format('%.0f', now)
if #ARGV > 5 then
  redis.call('HSET', KEYS[3], 'record', ARGV[3], 'state', 'running', 'created_at', at,
    'started_at', at, 'fed', '1', 'scanned', '1', 'queued', '1', 'position', ARGV[8])
  redis.call('XADD', KEYS[5], '*', 'k', ARGV[6], 'r', ARGV[7], 'p', ARGV[8], 'i', ARGV[2])
else
  redis.call('HSET', KEYS[3], 'record', ARGV[3], 'state', 'queued', 'created_at', at)
  redis.call('RPUSH', KEYS[4], ARGV[2])
end
redis.call('ZADD', KEYS[2], at, ARGV[2])
redis.call('HINCRBY', KEYS[6], 'replays', 1)
local surplus = redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[4])
if surplus > 0 then
  for _, id in ipairs(redis.call('ZRANGE', KEYS[2], 0, surplus - 1)) do
    if redis.call('HEXISTS', ARGV[5] .. id, 'finished_at') == 1 then
      redis.call('UNLINK', ARGV[5] .. id)
      redis.call('ZREM', KEYS[2], id)
    end
  end
end
-- Whoever has claimed the lane finds the replay when it gives the lane back.
if not redis.call('ZSCORE', KEYS[8], ARGV[1]) then redis.call('ZADD', KEYS[7], 'LT', at, ARGV[1]) end
return 1
