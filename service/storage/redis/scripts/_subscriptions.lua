-- Shared by the scripts that change subscriptions: the version of snapshots, and the number
-- of outboxes in each state among the totals. Needs _clock.

-- Increments the version. It follows the clock, so that a server that lost its last second does not
-- reuse the number of a lost edit.
local function bump_version(key)
  local version = math.max(tonumber(redis.call('GET', key) or '0') + 1, now_ms())
  redis.call('SET', key, version)
end

-- Removes an outbox from the counts.
local function uncount_outbox(outbox_state, totals)
  local counted = redis.call('HGET', outbox_state, 'state')
  if counted then redis.call('HINCRBY', totals, 'outbox:' .. counted, -1) end
end

-- Counts an outbox under its present state: that of `state_of` in
-- domain/delivery/subscription.py, or 'failing' if it is active and its last attempt failed.
local function count_outbox(outbox_state, totals)
  local state = 'active'
  for _, one in ipairs({'failing', 'parked', 'paused', 'disabled'}) do
    if redis.call('HEXISTS', outbox_state, one) == 1 then state = one end
  end
  if redis.call('HGET', outbox_state, 'state') ~= state then
    uncount_outbox(outbox_state, totals)
    redis.call('HINCRBY', totals, 'outbox:' .. state, 1)
    redis.call('HSET', outbox_state, 'state', state)
  end
end
