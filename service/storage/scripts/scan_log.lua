-- Reads events without their bodies, so that looking through much of the log moves little.
--
-- KEYS  1 events
-- ARGV  1 start and 2 end of an XRANGE  3 most at once
-- Result per event 5: position, type, integration id, course id, facts; as one list
local result = {}
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[2], 'COUNT', ARGV[3])) do
  local fields = {}
  for at = 1, #entry[2], 2 do fields[entry[2][at]] = entry[2][at + 1] end
  result[#result + 1] = entry[1]
  for _, name in ipairs({'t', 'i', 'c', 'm'}) do result[#result + 1] = fields[name] end
end
return result
