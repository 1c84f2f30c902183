-- What is shown of some subscriptions: their records, and how much their lanes hold.
--
-- KEYS  for each: subscription, lane, dead, lane state, replayed, replay queue
-- ARGV  none
-- Result for each false, or {record, pending, dead, position of the oldest pending or false, 1 if
--        parked, what replays have left}
local shown = {}
for at = 1, #KEYS, 6 do
  local found = redis.call('HGET', KEYS[at], 'record')
  if found then
    local pending = redis.call('XLEN', KEYS[at + 1])
    local oldest = pending > 0 and redis.call('XRANGE', KEYS[at + 1], '-', '+', 'COUNT', 1)[1]
    found = {
      found,
      pending,
      redis.call('ZCARD', KEYS[at + 2]),
      oldest and oldest[1] or false,
      redis.call('HEXISTS', KEYS[at + 3], 'parked'),
      redis.call('XLEN', KEYS[at + 4]) + redis.call('LLEN', KEYS[at + 5]),
    }
  end
  shown[#shown + 1] = found
end
return shown
