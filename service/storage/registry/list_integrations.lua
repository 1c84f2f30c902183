-- include _states
local found = {}
for _, id in ipairs(ids) do
  local integration = integration_prefix .. id
  local record = redis.call('HGET', integration, 'record')
  if record then
    found[#found + 1] = listed_integration {record = record, state = state_of(integration)}
  end
end
return found
