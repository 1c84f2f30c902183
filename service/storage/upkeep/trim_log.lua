local milliseconds, counter = string.match(last, '^(%d+)%-(%d+)$')
if not milliseconds then return redis.error_reply('trim_log: not a position') end
-- The removal comes first: it is allowed at the memory limit, and what follows it then as well.
local gone = redis.call('XTRIM', log, 'MINID',
  milliseconds .. '-' .. string.format('%.0f', tonumber(counter) + 1))
if gone > 0 then redis.call('SET', trimmed, last) end
return gone
