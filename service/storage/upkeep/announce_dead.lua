-- include _clock
-- include _events
-- include _announcing
if is_outdated(announced) then return SUBSCRIPTIONS end
for reason, deliveries in pairs(told) do
  if tonumber(redis.call('HGET', untold, reason) or '0') < deliveries then return STALE end
end
redis.call('HDEL', untold, 'first', 'last')
for reason, deliveries in pairs(told) do
  if redis.call('HINCRBY', untold, reason, -deliveries) == 0 then
    redis.call('HDEL', untold, reason)
  end
end
announce(announced, {}, now_ms())
