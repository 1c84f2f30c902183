-- include _clock
-- include _credentials
-- include _positions
-- include _events
-- include _announcing
-- include _epochs
-- include _states
if redis.call('HGET', credential, 'record') ~= as_read then return STALE end
if uses and tonumber(redis.call('HGET', credential, 'uses') or '0') ~= uses then return STALE end
if is_outdated(announced) then return SUBSCRIPTIONS end
for _, user in ipairs(users) do
  if redis.call('HGET', user.integration, 'record') ~= user.as_read
    or redis.call('HGET', user.integration, 'epoch') ~= user.epoch then
    return STALE
  end
  if user.upstream_before ~= user.upstream_after then
    local existing = redis.call('HGET', upstreams, user.upstream_after)
    if existing then return EXISTS .. ' ' .. existing end
  end
end

redis.call('HSET', credential, 'record', record)
if api_key then redis.call('HSET', credential, 'api_key', api_key) end
index_credential(credential, by_values, id, mark, base_url)
for _, user in ipairs(users) do
  if user.next_epoch then
    redis.call('HDEL', upstreams, user.upstream_before)
    redis.call('HSET', upstreams, user.upstream_after, user.id)
    begin_epoch(user.integration, announced.totals, user.next_epoch, user.kept)
    count_state(user.integration, announced.totals)
  end
  if user.wakes then wake_poll(schedule, user.id) end
end
announce(announced, {epoch = true}, now_ms())
