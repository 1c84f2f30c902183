-- include _patterns
local named = naming(outbox_state)
local found = {}
for _, id in ipairs(ids) do
  if redis.call('HEXISTS', named(id), 'parked') == 1 then found[#found + 1] = id end
end
return found
