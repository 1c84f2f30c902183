-- Trims the log up to a position and notes how far it got, which the stream itself does not: by
-- this a reader who missed something is told from one who merely finds nothing new.
--
-- KEYS  1 events  2 position of the last event trimmed
-- ARGV  1 position of the last event to go
-- Result how many went
local milliseconds, counter = string.match(ARGV[1], '^(%d+)%-(%d+)$')
if not milliseconds then return redis.error_reply('trim_log: not a position') end
-- The removal comes first: it is allowed at the memory limit, and what follows it then as well.
local gone = redis.call('XTRIM', KEYS[1], 'MINID',
  milliseconds .. '-' .. string.format('%.0f', tonumber(counter) + 1))
if gone > 0 then redis.call('SET', KEYS[2], ARGV[1]) end
return gone
