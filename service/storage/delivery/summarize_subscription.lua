local record = redis.call('HGET', subscription, 'record')
if not record then return false end
local pending = redis.call('XLEN', outbox)
local oldest = pending > 0 and redis.call('XRANGE', outbox, '-', '+', 'COUNT', 1)[1]
return subscription_as_found {
  record = record,
  pending = pending,
  dead = redis.call('ZCARD', dead),
  oldest = oldest and oldest[1],
  parked = redis.call('HEXISTS', outbox_state, 'parked') == 1,
  replaying = redis.call('XLEN', replayed) + redis.call('LLEN', replay_queue),
}
