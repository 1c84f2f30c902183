redis.call('ZREMRANGEBYSCORE', hours, '-inf', expired)
for _, hour in ipairs(made) do
  redis.call('ZADD', hours, hour.ended, hour.encoded)
end
redis.call('PEXPIRE', hours, kept_ms)
