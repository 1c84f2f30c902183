if redis.call('GET', reply) ~= mark then return end
if answer then
  redis.call('SET', reply, answer, 'EX', kept_seconds)
else
  redis.call('DEL', reply)
end
