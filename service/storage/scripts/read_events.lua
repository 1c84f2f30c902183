-- Reads events of the log. One command for each would cost whoever asks more than all of this.
--
-- KEYS  1 event log
-- ARGV  their positions
-- Result per position: the fields and values of its entry; nil where there is none
local result = {}
for at, position in ipairs(ARGV) do
  local found = redis.call('XRANGE', KEYS[1], position, position)
  result[at] = found[1] and found[1][2] or false
end
return result
