-- include _entries
-- include _patterns
local stream_of, failing_of, retries_of =
  naming(live.stream), naming(live.failing), naming(live.retries)
local replayed_of, replayed_failing_of, replayed_retries_of =
  naming(replayed.stream), naming(replayed.failing), naming(replayed.retries)
local order_of, dead_of = naming(replayed_order), naming(dead_facts)
local records_of, records_order_of = naming(records.stream), naming(records.order)

-- Whether a queue has an entry at a place, and when its next attempt is due if it has failed.
local function look_up(stream, failing, retries, place)
  local entry = redis.call('XRANGE', stream, place, place)[1]
  if not entry then return false end
  local key = fields_of(entry).k
  local head = redis.call('HGET', failing, key)
  if not head or string.match(head, '^%S+') ~= place then return true end
  return true, tonumber(redis.call('ZSCORE', retries, key) or nil)
end

-- The text after a prefix in the members of a sorted set.
local function behind(key, prefix)
  local found = redis.call('ZRANGE', key, '[' .. prefix, '(' .. prefix .. '\127', 'BYLEX')
  for at, member in ipairs(found) do found[at] = string.sub(member, #prefix + 1) end
  return found
end

local found = {}
for at, one in ipairs(places) do
  local id, sorted = one.id, one.sort_key
  local pending, due =
    look_up(stream_of(id), failing_of(id), retries_of(id), one.position)
  local replaying, replay_due = false, nil
  for _, place in ipairs(behind(order_of(id), sorted)) do
    local there, next_due =
      look_up(replayed_of(id), replayed_failing_of(id), replayed_retries_of(id), place)
    replaying = replaying or there
    replay_due = next_due or replay_due
  end
  local kept, delivered = {}, false
  for _, result in ipairs({'F', 'S'}) do
    for _, record_id in ipairs(behind(records_order_of(id), result .. sorted)) do
      local record = redis.call('XRANGE', records_of(id), record_id, record_id)[1]
      if record then
        kept[#kept + 1] = fields_of(record).d
        delivered = delivered or result == 'S'
      end
    end
  end
  found[at] = delivery_as_found {
    pending = pending, due = due, replaying = replaying, replay_due = replay_due,
    dead = redis.call('HGET', dead_of(id), sorted), delivered = delivered, records = kept,
  }
end
return found
