-- include _clock
-- include _subscriptions
-- include _replays
-- Ends a replay and takes back what of it has not been delivered. A sender at work finds out from
-- `emptied`. Begins with a removal, so that it still runs when Redis is at its memory limit.
--
-- KEYS  1 replay  2 replay queue  3 replayed  4 its retries  5 its failing  6 lane state  7 totals
--       8 backfilled
-- ARGV  1 replay id  2 random, to tell this from others
-- Result 'OK', 'GONE' if there is none, or 'OVER' if it has ended
local state = redis.call('HGET', KEYS[1], 'state')
if not state then return 'GONE' end
if state ~= 'queued' and state ~= 'running' then return 'OVER' end
redis.call('LREM', KEYS[2], 1, ARGV[1])
redis.call('HDEL', KEYS[6], 'replayed_cursor')
for _, entry in ipairs(redis.call('XRANGE', KEYS[3], '-', '+')) do
  local place, key, replay = entry[1], entry[2][2], entry[2][8]
  if replay == ARGV[1] then
    redis.call('XDEL', KEYS[3], place)
    forget_backfilled(KEYS[8], entry[2][6])
    if string.match(redis.call('HGET', KEYS[5], key) or '', '^%S+') == place then
      redis.call('HDEL', KEYS[5], key)
      redis.call('ZREM', KEYS[4], key)
    end
  end
end
redis.call('HSET', KEYS[1], 'state', 'cancelled', 'finished_at', string.format('%.0f', now_ms()))
redis.call('HSET', KEYS[6], 'emptied', ARGV[2])
redis.call('HINCRBY', KEYS[7], 'replays', -1)
return 'OK'
