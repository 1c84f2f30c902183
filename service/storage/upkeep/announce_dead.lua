-- include _clock
-- include _positions
-- include _events
-- include _announcing
if is_outdated(announced) then return SUBSCRIPTIONS end
for reason, deliveries in pairs(counts) do
  if tonumber(redis.call('HGET', unannounced, reason) or '0') < deliveries then return STALE end
end
redis.call('HDEL', unannounced, 'first', 'last')
for reason, deliveries in pairs(counts) do
  if redis.call('HINCRBY', unannounced, reason, -deliveries) == 0 then
    redis.call('HDEL', unannounced, reason)
  end
end
announce(announced, {}, now_ms())
