if redis.call('XLEN', outbox) ~= held then return end
for _, entry in ipairs(entries) do
  redis.call('XADD', outbox, entry.position, 'k', entry.order_key, 'r', entry.rendering)
end
redis.call('EXPIRE', outbox, kept_seconds)
