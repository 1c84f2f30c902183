-- The records of the ids in an index, in the order of creation.
local function records(index, prefix)
  local found = {}
  for _, id in ipairs(redis.call('ZRANGE', index, 0, -1)) do
    found[#found + 1] = redis.call('HGET', prefix .. id, 'record') or nil
  end
  return found
end

return snapshot {
  version = redis.call('GET', subscriptions_version) or '0',
  subscriptions = records(subscriptions, subscription_prefix),
  api_keys = records(api_keys, api_key_prefix),
}
