-- include _states
-- include _filters
local found = {}
for _, id in ipairs(ids) do
  local record, paused, attention, held, baselined = unpack(redis.call(
    'HMGET', integration_prefix .. id, 'record', 'paused', 'attention', 'held', 'baselined'))
  if record and may_contain(record, filter.text)
    and is_among(filter.states, state_from(paused, attention, held, baselined)) then
    found[#found + 1] = record
  end
end
return found
