local milliseconds, counter = string.match(last, '^(%d+)%-(%d+)$')
if not milliseconds then return redis.error_reply('trim_log: not a position') end
local first = milliseconds .. '-' .. string.format('%.0f', tonumber(counter) + 1)
-- The removal comes first: it is allowed at the memory limit, and what follows it then as well.
-- Whole nodes of the stream go in steps, the rest of a node at last.
local gone = redis.call('XTRIM', log, 'MINID', '~', first, 'LIMIT', most)
if gone == 0 then gone = redis.call('XTRIM', log, 'MINID', first) end
if gone > 0 then redis.call('SET', trimmed, last) end
return gone
