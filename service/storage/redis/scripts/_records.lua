-- Shared by the scripts that remove attempt records.

-- Removes the oldest records up to the id `last`, at most `most`; returns their number.
local function trim_records(records, last, most)
  local found = redis.call('XRANGE', records.stream, '-', last, 'COUNT', most)
  if #found == 0 then return 0 end
  local members = {}
  -- The first field of a record is its order key.
  for at, entry in ipairs(found) do members[at] = entry[2][2] .. entry[1] end
  redis.call('ZREM', records.order, unpack(members))
  local ms, counter = string.match(found[#found][1], '^(%d+)-(%d+)$')
  redis.call('XTRIM', records.stream, 'MINID', ms .. '-' .. string.format('%.0f', counter + 1))
  return #found
end
