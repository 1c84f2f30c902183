local result = {}
for at, position in ipairs(positions) do
  local entry = redis.call('XRANGE', events, position, position)[1]
  local fields = entry and entry[2] or false
  if fields and not bodies then
    local kept = {}
    for field = 1, #fields, 2 do
      if fields[field] ~= 'b' then
        kept[#kept + 1], kept[#kept + 2] = fields[field], fields[field + 1]
      end
    end
    fields = kept
  end
  result[at] = fields
end
return result
