-- Shared by the scripts that store or remove credentials.

-- Indexes a credential by its key's mark and its base URL; a nil value stays unchanged. Of several
-- with the same values, the first is indexed.
local function index_credential(credential, by_values, id, mark, base_url)
  local before = redis.call('HGET', credential, 'values') or ''
  local old_mark, old_url = string.match(before, '^(%S+) (.*)$')
  mark, base_url = mark or old_mark, base_url or old_url
  if not (mark and base_url) then return end
  local after = mark .. ' ' .. base_url
  if redis.call('HGET', by_values, before) == id then redis.call('HDEL', by_values, before) end
  redis.call('HSET', credential, 'values', after)
  redis.call('HSETNX', by_values, after, id)
end

local function delete_credential(credential, credentials, by_values, id)
  local values = redis.call('HGET', credential, 'values') or ''
  if redis.call('HGET', by_values, values) == id then redis.call('HDEL', by_values, values) end
  redis.call('ZREM', credentials, id)
  redis.call('DEL', credential)
end

-- Counts one use less. A credential that was created inline is deleted with its last integration.
local function leave_credential(credential, credentials, by_values, id, is_inline)
  if redis.call('HINCRBY', credential, 'uses', -1) == 0 and is_inline then
    delete_credential(credential, credentials, by_values, id)
  end
end
