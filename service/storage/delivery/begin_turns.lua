-- include _clock
-- include _entries
-- include _leases
local now = now_ms()
local version = redis.call('GET', subscriptions_version) or '0'
local names = {'breaker', 'bucket', 'resumed', 'cursor', 'emptied', 'replayed_cursor'}

-- The position from which to read, after everything before it was read at that time; the beginning
-- if no position is stored, or it is old.
local function cursor_of(stored)
  local read_at, start = string.match(stored or '', '^(%d+) (.+)$')
  local age = start and now - tonumber(read_at)
  if age and age >= 0 and age < cursor_ms then return start, tonumber(read_at) end
  return '-', now
end

local function begin(outbox)
  if not take_lease(schedule, outbox.lease, outbox.id, outbox.claim, now) then return false end
  local state = {}
  for at, value in ipairs(redis.call('HMGET', outbox.outbox_state, unpack(names))) do
    state[names[at]] = value or nil
  end
  if state.cursor or state.replayed_cursor then
    redis.call('HDEL', outbox.outbox_state, 'cursor', 'replayed_cursor')
  end
  local known = redis.call('HMGET', outbox.subscription, 'record', 'secrets', 'headers',
    'client_certificate')
  local start, scanned_at = cursor_of(state.cursor)
  local replayed_start, replayed_scanned_at = cursor_of(state.replayed_cursor)
  local entries = redis.call('XRANGE', outbox.live.stream, start, '+', 'COUNT', most)
  for at, entry in ipairs(entries) do
    local fields = fields_of(entry)
    entries[at] = entry_as_found {position = entry[1], order_key = fields.k, rendering = fields.r}
  end
  return outbox_as_found {
    now = now,
    breaker = state.breaker,
    bucket = state.bucket,
    resumed = state.resumed or '',
    emptied = state.emptied or '',
    start = start,
    scanned_at = scanned_at,
    entries = entries,
    failing = redis.call('HLEN', outbox.live.failing),
    record = known[1],
    version = version,
    replayed = redis.call('XLEN', outbox.replayed.stream),
    replayed_start = replayed_start,
    replayed_scanned_at = replayed_scanned_at,
    replayed_failing = redis.call('HLEN', outbox.replayed.failing),
    unfed = redis.call('LLEN', outbox.replay_queue),
    secrets = known[2] or '',
    headers = known[3] or '',
    client_certificate = known[4] or '',
  }
end

local found = {}
for at, outbox in ipairs(outboxes) do found[at] = begin(outbox) end
return found
