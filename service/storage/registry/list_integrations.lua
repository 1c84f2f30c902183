-- include _states
local found = {}
for _, id in ipairs(ids) do
  local record, paused, attention, held, baselined = unpack(redis.call(
    'HMGET', integration_prefix .. id, 'record', 'paused', 'attention', 'held', 'baselined'))
  if record then
    local state = state_from(paused, attention, held, baselined)
    found[#found + 1] = listed_integration {record = record, state = state}
  end
end
return found
