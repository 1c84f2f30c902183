if redis.call('XLEN', lane) ~= held then return end
for _, entry in ipairs(entries) do
  redis.call('XADD', lane, entry.position, 'k', entry.order_key, 'r', entry.rendering)
end
redis.call('EXPIRE', lane, kept_seconds)
