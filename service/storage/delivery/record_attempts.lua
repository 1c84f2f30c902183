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
local held, receivers = {}, {}
for at, outbox in ipairs(outboxes) do
  held[at] = redis.call('GET', outbox.lease.key) == outbox.lease.token
  local is_edited = outbox.as_read
    and redis.call('HGET', outbox.subscription, 'record') ~= outbox.as_read
  if held[at] and is_edited then return SUBSCRIPTIONS end
  if held[at] then receivers[#receivers + 1] = outbox.receiver end
end
if #receivers == 0 then return held end
if is_outdated(announced) then return SUBSCRIPTIONS end

local now = now_ms()
local totals, counters = announced.totals, announced.counters
local counts, finished, died, happened = {}, 0, 0, {}
redis.call('ZREM', unreachable, unpack(receivers))

local function increment(counter, by) counts[counter] = (counts[counter] or 0) + by end

-- Whether a replayed entry belongs to a redelivery.
local function is_redelivery(outbox, replay)
  return redis.call('HEXISTS', outbox.replay_prefix .. replay, 'only') == 1
end

-- Ends the pending delivery of an event that has just been redelivered; returns whether there was
-- one.
local function end_pending(outbox, position)
  local live = outbox.live
  local entry = redis.call('XRANGE', live.stream, position, position)[1]
  if not entry then return false end
  redis.call('XDEL', live.stream, position)
  forget_failing(live, fields_of(entry).k, position)
  finished = finished + 1
  increment(delivered_counter, 1)
  return true
end

-- Ends redeliveries of an event that has just been delivered, and adds them to `replays`; returns
-- whether there were any.
local function end_redeliveries(outbox, sorted, replays)
  local replayed, ended, last = outbox.replayed, false, '(' .. sorted .. '\127'
  local found = redis.call('ZRANGE', outbox.replayed_order, '[' .. sorted, last, 'BYLEX')
  for _, member in ipairs(found) do
    local place = string.sub(member, #sorted + 1)
    local entry = redis.call('XRANGE', replayed.stream, place, place)[1]
    local fields = entry and fields_of(entry)
    local replay = fields and fields.i
    if replay and is_redelivery(outbox, replay) then
      redis.call('XDEL', replayed.stream, place)
      redis.call('ZREM', outbox.replayed_order, member)
      forget_failing(replayed, fields.k, place)
      redis.call('HINCRBY', outbox.replay_prefix .. replay, 'delivered', 1)
      replays[replay] = true
      ended = true
    end
  end
  return ended
end

-- Records the attempts at the events of one outbox; returns how many were news, and whether this
-- ended deliveries on the other queue.
local function record(outbox, any_replayed, replays)
  local moved, settled, ordered = 0, false, {}
  local any_dead = redis.call('ZCARD', outbox.dead.listed) > 0
  for _, one in ipairs(outbox.attempts) do
    local key, queue_position, sorted = one.order_key, one.queue_position, one.sort_key
    local entry, retry, death = one.replayed, one.retry, one.death
    local queue, position, replay = outbox.live, queue_position, nil
    if entry then queue, position, replay = outbox.replayed, entry.position, entry.replay end
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
        redis.call('ZREM', outbox.replayed_order, sorted .. queue_position)
        forget_backfilled(outbox.backfilled, position)
        redis.call('HINCRBY', outbox.replay_prefix .. replay, death and 'dead' or 'delivered', 1)
        replays[replay] = true
      end
      if news and death then
        died = died
          + list_dead(outbox.dead, sorted, now, death.attempts, death.rendering, key, death.reason)
        note_dead(outbox.dead, position, key, death.reason)
      elseif news then
        if any_dead then died = died - unlist_dead(outbox.dead, sorted) end
        if replay and is_redelivery(outbox, replay) then
          settled = end_pending(outbox, position) or settled
        elseif any_replayed and not replay then
          settled = end_redeliveries(outbox, sorted, replays) or settled
        end
      end
    end
    if news then
      moved = moved + 1
      if one.record then
        local order = ((retry or death) and 'F' or 'S') .. sorted
        local id = redis.call('XADD', outbox.records.stream, '*', 'o', order, 'd', one.record)
        ordered[#ordered + 1], ordered[#ordered + 2] = 0, order .. id
      end
    end
  end
  if #ordered > 0 then redis.call('ZADD', outbox.records.order, unpack(ordered)) end
  local surplus = redis.call('XLEN', outbox.records.stream) - kept_records
  if surplus >= TRIMMED_RECORDS then trim_records(outbox.records, '+', surplus) end
  return moved, settled
end

-- Stores the state of the breaker, and disables the subscription.
local function change_state(outbox)
  local outbox_state = outbox.outbox_state
  redis.call('HSET', outbox_state, 'breaker', outbox.breaker)
  if outbox.failing then
    redis.call('HSET', outbox_state, 'failing', '1')
  else
    redis.call('HDEL', outbox_state, 'failing')
  end
  if outbox.parked_at then
    happened.parked = redis.call('HSET', outbox_state, 'parked', outbox.parked_at) == 1
  else
    happened.unparked = redis.call('HDEL', outbox_state, 'parked') == 1 and not outbox.as_read
  end
  if outbox.as_read then
    redis.call('HSET', outbox.subscription, 'record', outbox.disabled)
    happened.disabled = redis.call('HSET', outbox_state, 'disabled', now) == 1
    bump_version(announced.subscriptions_version)
  end
  count_outbox(outbox_state, totals)
end

-- Records everything about one outbox; returns the facts of its standing that are known then.
local function store(outbox)
  local any_replayed, replays = redis.call('XLEN', outbox.replayed.stream) > 0, {}
  local moved, settled = record(outbox, any_replayed, replays)
  local state = redis.call('HMGET', outbox.outbox_state, 'resumed', 'emptied')
  local resumed, emptied = state[1] or '', state[2] or ''
  -- State that a resume has cleared meanwhile stays cleared: its sender starts again.
  if moved > 0 and outbox.breaker and resumed == outbox.resumed then change_state(outbox) end
  if settled then -- a running sender reads the other queue again
    emptied = string.format('%.0f', now)
    redis.call('HSET', outbox.outbox_state, 'emptied', emptied)
  end
  if outbox.bucket then redis.call('HSET', outbox.outbox_state, 'bucket', outbox.bucket) end
  if outbox.forward then
    bring_forward(outbox.live.retries)
    bring_forward(outbox.replayed.retries)
  end
  for replay in pairs(replays) do complete_replay(outbox.replay_prefix .. replay, totals, now) end
  if moved > 0 then
    for counter, by in pairs(outbox.increments) do increment(counter, by) end
  end
  return {news = moved > 0, resumed = resumed, emptied = emptied, any_replayed = any_replayed}
end

local stored, reached_now, failure = {}, {}, nil
for at, outbox in ipairs(outboxes) do
  if held[at] then
    -- Broken data of one outbox must not keep the others from being counted.
    local succeeded, result = pcall(store, outbox)
    stored[at] = succeeded and result
    if not succeeded then failure = result end
  else
    stored[at] = false
  end
  if stored[at] and outbox.receiver ~= '' then
    reached_now[#reached_now + 1], reached_now[#reached_now + 2] = now, outbox.receiver
  end
end
if #reached_now > 0 then
  redis.call('ZADD', reached, unpack(reached_now))
  redis.call('EXPIRE', reached, NETWORK_SECONDS)
end
if finished ~= 0 then redis.call('HINCRBY', totals, 'pending', -finished) end
if died ~= 0 then redis.call('HINCRBY', totals, 'dead', died) end
if next(counts) then
  for counter, by in pairs(counts) do redis.call('HINCRBY', counters, counter, by) end
  redis.call('EXPIRE', counters, COUNTERS_SECONDS)
end
announce(announced, happened, now)
if failure then error(failure, 0) end

-- The standing of an outbox, which is returned to the schedule if it is empty after its last
-- attempts.
local function standing_of(outbox, known)
  local pending = redis.call('XLEN', outbox.live.stream)
  local replaying = known.any_replayed and redis.call('XLEN', outbox.replayed.stream) or 0
  local released = outbox.last and pending + replaying == 0
    and redis.call('LLEN', outbox.replay_queue) == 0
  if released then drop_lease(schedule, outbox.lease, outbox.id) end
  return standing {
    news = known.news,
    resumed = known.resumed,
    emptied = known.emptied,
    version = redis.call('GET', announced.subscriptions_version) or '0',
    pending = pending,
    replaying = replaying,
    released = released,
  }
end

for at, outbox in ipairs(outboxes) do
  stored[at] = stored[at] and standing_of(outbox, stored[at])
end
return stored
