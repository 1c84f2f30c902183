if field then
  if redis.call('HGET', place, field) ~= as_read then return false end
  redis.call('HDEL', place, field)
  redis.call('HSET', place, field, anew)
  return true
end
if redis.call('GET', place) ~= as_read then return false end
local left = redis.call('PTTL', place)
redis.call('DEL', place)
if left > 0 then
  redis.call('SET', place, anew, 'PX', left)
elseif left == -1 then
  redis.call('SET', place, anew)
end
return true
