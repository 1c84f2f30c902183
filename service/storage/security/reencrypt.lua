-- include _credentials
if field then
  if redis.call('HGET', location, field) ~= as_read then return false end
  redis.call('HDEL', location, field)
  redis.call('HSET', location, field, anew)
  if mark then index_credential(location, by_values, id, mark) end
  return true
end
if redis.call('GET', location) ~= as_read then return false end
local left = redis.call('PTTL', location)
redis.call('DEL', location)
if left > 0 then
  redis.call('SET', location, anew, 'PX', left)
elseif left == -1 then
  redis.call('SET', location, anew)
end
return true
