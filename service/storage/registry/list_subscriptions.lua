-- include _patterns
-- include _filters
local state_of = naming(outbox_state)
local found = {}
for at, id in ipairs(ids) do
  local record = redis.call('HGET', subscription_prefix .. id, 'record')
  found[at] = record and may_match(filter, record, state_of(id)) and record
end
return found
