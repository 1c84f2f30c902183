-- include _clock
-- include _credentials
-- include _positions
-- include _events
-- include _announcing
-- include _epochs
-- include _states
if redis.call('HGET', integration, 'record') ~= as_read
  or redis.call('HGET', integration, 'epoch') ~= epoch
  or redis.call('HGET', credential_before, 'record') ~= credential_before_as_read
  or redis.call('HGET', credential_after, 'record') ~= credential_after_as_read then
  return STALE
end
if is_outdated(announced) then return SUBSCRIPTIONS end
if upstream_before ~= upstream_after then
  local existing = redis.call('HGET', upstreams, upstream_after)
  if existing then return EXISTS .. ' ' .. existing end
  redis.call('HDEL', upstreams, upstream_before)
  redis.call('HSET', upstreams, upstream_after, id)
end
if credential_before ~= credential_after then
  leave_credential(credential_before, credentials, by_values, credential_before_id, is_inline)
  redis.call('HINCRBY', credential_after, 'uses', 1)
end
local stops = place == 'stop'
redis.call('HSET', integration, 'record', record, 'paused', stops and '1' or '')
local happened = {}
if next_epoch and (moved or redis.call('HGET', integration, 'baselined') ~= '1') then
  begin_epoch(integration, announced.totals, next_epoch, kept)
  happened.epoch = true
end
if place == 'wake' then wake_poll(schedule, id) end
if stops then
  for _, index in ipairs({schedule.due, completed_deltas, completed_full_polls}) do
    redis.call('ZREM', index, id)
  end
end
count_state(integration, announced.totals)
announce(announced, happened, now_ms())
