-- include _entries
local heads = {}
for at, entry in ipairs(redis.call('XRANGE', events, first, last, 'COUNT', most)) do
  local event = fields_of(entry)
  heads[at] = event_head {
    position = entry[1], type = event.t, integration_id = event.i, course_id = event.c,
    facts = event.m,
  }
end
return heads
