-- include _clock
local now, lost = now_ms(), {}
for at, lease in ipairs(leases) do
  if redis.call('GET', lease.key) == lease.token then
    -- This comes first, so that it runs even when Redis is at its memory limit.
    redis.call('PEXPIRE', lease.key, lease.ms)
    redis.call('ZADD', claimed, 'XX', now + lease.ms, lease.id)
  else
    lost[#lost + 1] = at
  end
end
return lost
