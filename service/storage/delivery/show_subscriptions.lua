local all = {}
for at, one in ipairs(subscriptions) do
  local record = redis.call('HGET', one.subscription, 'record')
  all[at] = false
  if record then
    local pending = redis.call('XLEN', one.outbox)
    local oldest = pending > 0 and redis.call('XRANGE', one.outbox, '-', '+', 'COUNT', 1)[1]
    all[at] = subscription_as_found {
      record = record,
      pending = pending,
      dead = redis.call('ZCARD', one.dead),
      oldest = oldest and oldest[1],
      parked = redis.call('HEXISTS', one.outbox_state, 'parked') == 1,
      replaying = redis.call('XLEN', one.replayed) + redis.call('LLEN', one.replay_queue),
    }
  end
end
return all
