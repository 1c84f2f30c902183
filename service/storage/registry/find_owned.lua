-- include _patterns
-- include _filters
local state_of = naming(outbox_state)
local found = {}
for _, id in ipairs(redis.call('ZRANGE', subscriptions, 0, -1)) do
  local record = redis.call('HGET', subscription_prefix .. id, 'record')
  if record and string.find(record, owner, 1, true) and may_match(filter, record, state_of(id)) then
    found[#found + 1] = record
  end
end
return found
