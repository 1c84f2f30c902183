-- include _patterns
local stream_of = outbox and naming(outbox)
local command = newest_first and 'XREVRANGE' or 'XRANGE'
for _, sources in ipairs({usual, rare}) do
  for _, source in ipairs(sources) do
    local start, stop = source.prefix .. start_sort_key, source.prefix .. end_sort_key
    source.key_of, source.from, source.to = naming(source.key), #source.prefix + 1, #start
    source.start = newest_first and '(' .. start .. '\127' or '[' .. start
    source.stop = newest_first and '[' .. stop or '(' .. stop .. '\127'
  end
end

-- The first sort keys in a sorted set.
local function read(source, key)
  local found
  if newest_first then
    found = redis.call('ZRANGE', key, source.start, source.stop, 'BYLEX', 'REV', 'LIMIT', 0, most)
  else
    found = redis.call('ZRANGE', key, source.start, source.stop, 'BYLEX', 'LIMIT', 0, most)
  end
  for at, member in ipairs(found) do found[at] = string.sub(member, source.from, source.to) end
  return table.concat(found, ' ')
end

local found = {}
for at, id in ipairs(ids) do
  local parts, names = {}, {}
  for index, source in ipairs(rare) do names[index] = source.key_of(id) end
  if stream_of then names[#rare + 1] = stream_of(id) end
  if #names > 0 and redis.call('EXISTS', unpack(names)) > 0 then
    for index, source in ipairs(rare) do parts[index] = read(source, names[index]) end
    if stream_of then
      local stream, entries = names[#names], {}
      -- Where nothing is before its start, XREVRANGE reads the whole stream to find that out.
      if not newest_first or #redis.call('XRANGE', stream, '-', start_position, 'COUNT', 1) > 0 then
        entries = redis.call(command, stream, start_position, end_position, 'COUNT', most)
      end
      for place, entry in ipairs(entries) do entries[place] = entry[1] end
      parts[#names] = table.concat(entries, ' ')
    end
  end
  for _, source in ipairs(usual) do parts[#parts + 1] = read(source, source.key_of(id)) end
  found[at] = table.concat(parts, '|')
end
return found
