-- Begins a sender's turn: what the lane remembers. Where the last sender stopped is handed over
-- and forgotten, so that a turn that breaks off is followed by one that looks at everything.
--
-- KEYS  1 lane state  2 failing  3 subscription  4 subscriptions version  5 replayed
--       6 replayed failing  7 replay queue
-- Result ms now, breaker JSON, bucket JSON, `resumed`, cursor and `emptied`, each '' if not set,
--        how many courses are failing, the subscription's record and the version it belongs to,
--        how many entries are being replayed, how many courses of these are failing, how many
--        replays wait to be fed, `replayed_cursor`, and the subscription's sealed secrets,
--        headers and client certificate, the last '' if it has none
local time = redis.call('TIME')
local state = redis.call('HMGET', KEYS[1], 'breaker', 'bucket', 'resumed', 'cursor', 'emptied',
  'replayed_cursor')
redis.call('HDEL', KEYS[1], 'cursor', 'replayed_cursor')
return {
  time[1] * 1000 + math.floor(time[2] / 1000),
  state[1] or '', state[2] or '', state[3] or '', state[4] or '', state[5] or '',
  redis.call('HLEN', KEYS[2]),
  redis.call('HGET', KEYS[3], 'record') or '', redis.call('GET', KEYS[4]) or '0',
  redis.call('XLEN', KEYS[5]), redis.call('HLEN', KEYS[6]), redis.call('LLEN', KEYS[7]),
  state[6] or '', redis.call('HGET', KEYS[3], 'secrets') or '',
  redis.call('HGET', KEYS[3], 'headers') or '',
  redis.call('HGET', KEYS[3], 'client_certificate') or '',
}
