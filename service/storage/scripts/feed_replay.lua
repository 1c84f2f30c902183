-- include _clock
-- include _subscriptions
-- include _replays
-- Puts the next part of a replay behind what is being replayed, together with how far it has come,
-- so that it goes on from there after any crash.
--
-- KEYS  1 lease  2 replay queue  3 replay  4 replayed  5 totals  6 backfilled  7 counters
-- ARGV  1 lease token  2 replay id  3 position as read, '' at the start  4 position from now on
--       5 events looked at  6 '1' if that was all  7 entries from which nothing more is added
--       8 what is to be said of it, or ''  9 why it fails, or ''  10 records left out
--       11 number of counters
--       then per counter: field, increment
--       then per entry 3: order key, rendering, and position in the log; or '' if its event is made
--       here, followed by 7: type, integration id, course id, suffix, sequence, facts, body
-- Result 'OK', 'LEASE', 'FULL', or 'STALE' if the replay is not where it was read
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'LEASE' end
if redis.call('LINDEX', KEYS[2], 0) ~= ARGV[2]
  or (redis.call('HGET', KEYS[3], 'position') or '') ~= ARGV[3] then return 'STALE' end
if redis.call('XLEN', KEYS[4]) >= tonumber(ARGV[7]) then return 'FULL' end

local now = now_ms()
local at = string.format('%.0f', now)
-- A write that may grow comes first: at the memory limit Redis then refuses all of it.
redis.call('HSET', KEYS[3], 'position', ARGV[4])
redis.call('HSETNX', KEYS[3], 'started_at', at)
redis.call('HSET', KEYS[3], 'state', 'running')
local counters, queued = tonumber(ARGV[11]), 0
local entry = 12 + 2 * counters
while entry <= #ARGV do
  local position, size = ARGV[entry + 2], 3
  if position == '' then
    -- In the log's form, so that it is read and rendered like any other.
    position = backfilled_position(redis.call('XADD', KEYS[6], '*', 't', ARGV[entry + 3],
      'i', ARGV[entry + 4], 'c', ARGV[entry + 5], 'x', ARGV[entry + 6], 's', ARGV[entry + 7],
      'p', '0', 'm', ARGV[entry + 8], 'b', ARGV[entry + 9]))
    size = 10
  end
  redis.call('XADD', KEYS[4], '*', 'k', ARGV[entry], 'r', ARGV[entry + 1], 'p', position,
    'i', ARGV[2])
  queued, entry = queued + 1, entry + size
end
redis.call('HINCRBY', KEYS[3], 'scanned', ARGV[5])
redis.call('HINCRBY', KEYS[3], 'queued', queued)
redis.call('HINCRBY', KEYS[3], 'left_out', ARGV[10])
if counters > 0 then
  for counter = 1, counters do
    redis.call('HINCRBY', KEYS[7], ARGV[10 + 2 * counter], ARGV[11 + 2 * counter])
  end
  redis.call('EXPIRE', KEYS[7], 604800)
end
if ARGV[8] ~= '' then redis.call('HSET', KEYS[3], 'error', ARGV[8]) end
if ARGV[9] ~= '' then
  redis.call('HSET', KEYS[3], 'error', ARGV[9], 'state', 'failed', 'finished_at', at)
  redis.call('HINCRBY', KEYS[5], 'replays', -1)
  redis.call('LPOP', KEYS[2])
elseif ARGV[6] == '1' then
  redis.call('HSET', KEYS[3], 'fed', '1')
  redis.call('LPOP', KEYS[2])
  complete_replay(KEYS[3], KEYS[5], now)
end
return 'OK'
