local found = {}
for at, id in ipairs(ids) do
  found[at] = redis.call('HGET', subscription_prefix .. id, 'record')
end
return found
