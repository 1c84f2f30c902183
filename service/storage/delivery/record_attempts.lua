-- include _clock
-- include _positions
-- include _events
-- include _announcing
-- include _subscriptions
-- include _dead
-- include _entries
-- include _replays
-- include _failing
-- include _records
-- include _retries
-- include _leases
if redis.call('GET', lease.key) ~= lease.token then return LEASE end
if as_read and redis.call('HGET', subscription, 'record') ~= as_read then return SUBSCRIPTIONS end
if is_outdated(announced) then return SUBSCRIPTIONS end

local now = now_ms()
redis.call('ZREM', unreachable, receiver)
local totals = announced.totals
local finished, died, moved, settled, replays, ordered = 0, 0, 0, 0, {}, {}
local any_dead = redis.call('ZCARD', dead.listed) > 0
local any_replayed = redis.call('XLEN', replayed.stream) > 0

-- Whether a replayed entry belongs to a redelivery.
local function is_redelivery(replay)
  return redis.call('HEXISTS', replay_prefix .. replay, 'only') == 1
end

-- Ends the pending delivery of an event that has just been redelivered; returns 1 or 0.
local function end_pending(position)
  local entry = redis.call('XRANGE', live.stream, position, position)[1]
  if not entry then return 0 end
  redis.call('XDEL', live.stream, position)
  forget_failing(live, fields_of(entry).k, position)
  finished = finished + 1
  redis.call('HINCRBY', announced.counters, delivered_counter, 1)
  return 1
end

-- Ends redeliveries of an event that has just been delivered; returns their number.
local function end_redeliveries(sorted)
  local ended, last = 0, '(' .. sorted .. '\127'
  local found = redis.call('ZRANGE', replayed_order, '[' .. sorted, last, 'BYLEX')
  for _, member in ipairs(found) do
    local place = string.sub(member, #sorted + 1)
    local entry = redis.call('XRANGE', replayed.stream, place, place)[1]
    local fields = entry and fields_of(entry)
    local replay = fields and fields.i
    if replay and is_redelivery(replay) then
      redis.call('XDEL', replayed.stream, place)
      redis.call('ZREM', replayed_order, member)
      forget_failing(replayed, fields.k, place)
      redis.call('HINCRBY', replay_prefix .. replay, 'delivered', 1)
      replays[replay] = true
      ended = ended + 1
    end
  end
  return ended
end

for _, one in ipairs(attempts) do
  local key, queue_position, sorted = one.order_key, one.queue_position, one.sort_key
  local entry, retry, death = one.replayed, one.retry, one.death
  local queue, position, replay = live, queue_position, nil
  if entry then queue, position, replay = replayed, entry.position, entry.replay end
  local news = false
  if retry then
    news = redis.call('HGET', queue.failing, key) ~= retry.head
      and #redis.call('XRANGE', queue.stream, queue_position, queue_position) == 1
    if news then
      -- To the second, so that retries of one moment share a turn of the sender.
      local due = math.ceil((now + retry.wait_ms) / 1000) * 1000
      note_failing(queue, key, retry.head, due)
    end
  else
    forget_failing(queue, key, queue_position)
    news = redis.call('XDEL', queue.stream, queue_position) == 1
    if news and not replay then finished = finished + 1 end
    if news and replay then
      redis.call('ZREM', replayed_order, sorted .. queue_position)
      forget_backfilled(backfilled, position)
      redis.call('HINCRBY', replay_prefix .. replay, death and 'dead' or 'delivered', 1)
      replays[replay] = true
    end
    if news and death then
      died = died
        + list_dead(dead, sorted, now, death.attempts, death.rendering, key, death.reason)
      note_dead(dead, position, key, death.reason)
    elseif news then
      if any_dead then died = died - unlist_dead(dead, sorted) end
      if replay and is_redelivery(replay) then
        settled = settled + end_pending(position)
      elseif any_replayed and not replay then
        settled = settled + end_redeliveries(sorted)
      end
    end
  end
  if news then
    moved = moved + 1
    if one.record then
      local order = ((retry or death) and 'F' or 'S') .. sorted
      local id = redis.call('XADD', records.stream, '*', 'o', order, 'd', one.record)
      ordered[#ordered + 1], ordered[#ordered + 2] = 0, order .. id
    end
  end
end
if #ordered > 0 then redis.call('ZADD', records.order, unpack(ordered)) end
local surplus = redis.call('XLEN', records.stream) - kept_records
if surplus >= TRIMMED_RECORDS then trim_records(records, '+', surplus) end

local happened = {}
local state = redis.call('HMGET', outbox_state, 'resumed', 'emptied')
local resumed_now, emptied = state[1] or '', state[2] or ''
if moved > 0 and breaker and resumed_now == resumed then
  -- State that a resume has cleared meanwhile stays cleared: its sender starts again.
  redis.call('HSET', outbox_state, 'breaker', breaker)
  if failing then
    redis.call('HSET', outbox_state, 'failing', '1')
  else
    redis.call('HDEL', outbox_state, 'failing')
  end
  if parked_at then
    happened.parked = redis.call('HSET', outbox_state, 'parked', parked_at) == 1
  else
    happened.unparked = redis.call('HDEL', outbox_state, 'parked') == 1 and not as_read
  end
  if as_read then
    redis.call('HSET', subscription, 'record', disabled)
    happened.disabled = redis.call('HSET', outbox_state, 'disabled', now) == 1
    bump_version(announced.subscriptions_version)
  end
  count_outbox(outbox_state, totals)
end
-- A running sender reads the other queue again.
if settled > 0 then
  emptied = string.format('%.0f', now)
  redis.call('HSET', outbox_state, 'emptied', emptied)
end
if bucket then redis.call('HSET', outbox_state, 'bucket', bucket) end
if forward then
  bring_forward(live.retries)
  bring_forward(replayed.retries)
end
for replay in pairs(replays) do complete_replay(replay_prefix .. replay, totals, now) end
if receiver ~= '' then
  redis.call('ZADD', reached, now, receiver)
  redis.call('EXPIRE', reached, NETWORK_SECONDS)
end
if finished ~= 0 then redis.call('HINCRBY', totals, 'pending', -finished) end
if died ~= 0 then redis.call('HINCRBY', totals, 'dead', died) end
if moved > 0 then
  for counter, increment in pairs(increments) do
    redis.call('HINCRBY', announced.counters, counter, increment)
  end
  redis.call('EXPIRE', announced.counters, COUNTERS_SECONDS)
end
announce(announced, happened, now)
local pending = redis.call('XLEN', live.stream)
local replaying = any_replayed and redis.call('XLEN', replayed.stream) or 0
local released = last and pending + replaying == 0 and redis.call('LLEN', replay_queue) == 0
if released then drop_lease(schedule, lease, id) end
return standing {
  resumed = resumed_now,
  emptied = emptied,
  version = redis.call('GET', announced.subscriptions_version) or '0',
  pending = pending,
  replaying = replaying,
  released = released,
}
