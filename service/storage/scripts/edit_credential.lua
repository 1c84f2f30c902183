-- include _epochs
-- include _states
-- Stores an edited credential, and what that means for the integrations that use it: another
-- base URL begins a new epoch of each, another key makes each be walked at once.
--
-- KEYS  1 credential  2 upstreams  3 due walks  4 claimed walks  5 totals
--       then per integration 8: its hash, and the seven keys of the epoch in force
-- ARGV  1 record as read  2 record  3 sealed API key, '' to keep it
--       4 number of uses as read, '' if the integrations are not concerned
--       then per integration 7: id, record as read, epoch as read, next epoch ('' to stay in
--       it), upstream before, upstream after, '1' if it may be woken
-- Result {'OK'}, {'EXISTS', id of the integration on that upstream} or {'STALE'}
local PER_INTEGRATION, KEYS_EACH = 7, 8
if redis.call('HGET', KEYS[1], 'record') ~= ARGV[1] then return {'STALE'} end
if ARGV[4] ~= '' and (redis.call('HGET', KEYS[1], 'uses') or '0') ~= ARGV[4] then
  return {'STALE'}
end
for at = 5, #ARGV, PER_INTEGRATION do
  local integration = KEYS[6 + KEYS_EACH * (at - 5) / PER_INTEGRATION]
  if redis.call('HGET', integration, 'record') ~= ARGV[at + 1]
    or redis.call('HGET', integration, 'epoch') ~= ARGV[at + 2] then
    return {'STALE'}
  end
  if ARGV[at + 4] ~= ARGV[at + 5] then
    local existing = redis.call('HGET', KEYS[2], ARGV[at + 5])
    if existing then return {'EXISTS', existing} end
  end
end

redis.call('HSET', KEYS[1], 'record', ARGV[2])
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'api_key', ARGV[3]) end
for at = 5, #ARGV, PER_INTEGRATION do
  local key = 6 + KEYS_EACH * (at - 5) / PER_INTEGRATION
  if ARGV[at + 3] ~= '' then
    redis.call('HDEL', KEYS[2], ARGV[at + 4])
    redis.call('HSET', KEYS[2], ARGV[at + 5], ARGV[at])
    local kept = {}
    for own = 1, KEYS_EACH - 1 do kept[own] = KEYS[key + own] end
    begin_epoch(KEYS[key], KEYS[5], ARGV[at + 3], kept)
    count_state(KEYS[key], KEYS[5])
  end
  if ARGV[at + 6] == '1' then wake_walk(KEYS[3], KEYS[4], ARGV[at]) end
end
return {'OK'}
