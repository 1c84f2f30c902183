-- include _states
-- Registers an integration and makes its first walk due now.
--
-- KEYS  1 integration  2 integrations  3 upstreams  4 credential  5 due walks  6 totals
-- ARGV  1 id  2 created ms  3 record  4 epoch  5 upstream ("base_url upstream_id")
--       6 the credential's record as read  7 '1' if it is to be walked  8 how many there may be
-- Result {'OK'}, {'EXISTS', id of the integration on that upstream}, {'FULL'} or {'STALE'}
if redis.call('HGET', KEYS[4], 'record') ~= ARGV[6] then return {'STALE'} end
local existing = redis.call('HGET', KEYS[3], ARGV[5])
if existing then return {'EXISTS', existing} end
if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[8]) then return {'FULL'} end
redis.call('HSET', KEYS[1], 'record', ARGV[3], 'epoch', ARGV[4],
  'paused', ARGV[7] == '1' and '' or '1')
count_state(KEYS[1], KEYS[6])
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
redis.call('HSET', KEYS[3], ARGV[5], ARGV[1])
redis.call('HINCRBY', KEYS[4], 'uses', 1)
if ARGV[7] == '1' then
  local time = redis.call('TIME')
  redis.call('ZADD', KEYS[5],
    string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)), ARGV[1])
end
return {'OK'}
