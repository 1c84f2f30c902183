local result = {}
for at, position in ipairs(positions) do
  local found = redis.call('XRANGE', events, position, position)
  result[at] = found[1] and found[1][2] or false
end
return result
