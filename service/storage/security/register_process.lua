-- include _clock
local now = now_ms()
redis.call('ZREMRANGEBYSCORE', processes, '-inf', now)
if lives_ms == 0 then
  redis.call('ZREM', processes, process)
  return
end
redis.call('ZADD', processes, now + lives_ms, process)
redis.call('PEXPIRE', processes, lives_ms)
