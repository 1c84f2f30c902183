-- include _clock
-- include _credentials
-- include _epochs
-- include _states
if redis.call('HGET', integration, 'record') ~= as_read
  or redis.call('HGET', integration, 'epoch') ~= epoch
  or redis.call('HGET', credential, 'record') ~= credential_as_read then
  return STALE
end
for _, index in ipairs({integrations, schedule.due, schedule.claimed, schedule.overdue,
  completed_deltas, completed_full_polls}) do
  redis.call('ZREM', index, id)
end
redis.call('HDEL', upstreams, upstream)
leave_totals(integration, totals)
uncount_state(integration, totals)
leave_credential(credential, credentials, by_values, credential_id, is_inline)
redis.call('UNLINK', integration, lease, polls, poll_order)
forget_epoch(kept)
