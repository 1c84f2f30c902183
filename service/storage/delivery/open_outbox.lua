-- include _clock
local names = {'breaker', 'bucket', 'resumed', 'cursor', 'emptied', 'replayed_cursor'}
local state = {}
for at, value in ipairs(redis.call('HMGET', outbox_state, unpack(names))) do
  state[names[at]] = value or nil
end
redis.call('HDEL', outbox_state, 'cursor', 'replayed_cursor')
local known = redis.call('HMGET', subscription, 'record', 'secrets', 'headers',
  'client_certificate')
return outbox_as_found {
  now = now_ms(),
  breaker = state.breaker,
  bucket = state.bucket,
  resumed = state.resumed or '',
  emptied = state.emptied or '',
  cursor = state.cursor or '',
  failing = redis.call('HLEN', live.failing),
  record = known[1],
  version = redis.call('GET', subscriptions_version) or '0',
  replayed = redis.call('XLEN', replayed.stream),
  replayed_cursor = state.replayed_cursor or '',
  replayed_failing = redis.call('HLEN', replayed.failing),
  unfed = redis.call('LLEN', replay_queue),
  secrets = known[2] or '',
  headers = known[3] or '',
  client_certificate = known[4] or '',
}
