-- include _clock
local now = now_ms()
local since = now - window_ms
redis.call('ZREM', reached, receiver)
for _, receivers in ipairs({unreachable, reached}) do
  redis.call('ZREMRANGEBYSCORE', receivers, '-inf', string.format('(%.0f', since))
end
redis.call('ZADD', unreachable, now, receiver)
redis.call('EXPIRE', unreachable, NETWORK_SECONDS)
local failing = redis.call('ZCARD', unreachable)
local first = redis.call('ZRANGE', unreachable, 0, 0, 'WITHSCORES')[2]
return reachability {
  unreachable = failing,
  tried = failing + redis.call('ZCOUNT', reached, first, '+inf'),
}
