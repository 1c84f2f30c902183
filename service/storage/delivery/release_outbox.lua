-- include _clock
-- include _leases
if redis.call('GET', lease.key) ~= lease.token then return LEASE end
drop_lease(schedule, lease, id)
redis.call('HDEL', outbox_state, 'cursor', 'replayed_cursor')
if bucket then redis.call('HSET', outbox_state, 'bucket', bucket) end
local pending = redis.call('XLEN', live.stream)
local replaying = redis.call('XLEN', replayed.stream)
local unfed = redis.call('LLEN', replay_queue) > 0
if due == 'never' or (pending + replaying == 0 and not unfed) then return false end

local now = now_ms()
local due_at = math.huge
if unfed then due_at = now + feed_ms end

-- Brings the outbox forward to the next retry of a queue, or to now if that lists none.
local function next_retry(length, retries)
  if length == 0 then return false end
  local first = redis.call('ZRANGE', retries, 0, 0, 'WITHSCORES')
  due_at = math.min(due_at, #first > 0 and tonumber(first[2]) or now)
  return #first > 0
end

next_retry(replaying, replayed.retries)
local listed = next_retry(pending, live.retries)
local unseen = pending > 0 and #redis.call('XRANGE', live.stream, start, '+', 'COUNT', 1) > 0
local is_resumed = (redis.call('HGET', outbox_state, 'resumed') or '') ~= resumed
-- Entries that waited behind a removed one are in neither part that has been read.
local is_emptied = (redis.call('HGET', outbox_state, 'emptied') or '') ~= emptied
if not is_emptied then
  if unseen or listed then
    redis.call('HSET', outbox_state, 'cursor', string.format('%.0f %s', scanned_at, start))
  end
  if replaying > 0 and replayed_start ~= '' then
    redis.call('HSET', outbox_state, 'replayed_cursor',
      string.format('%.0f %s', replayed_scanned_at, replayed_start))
  end
end
if not is_resumed and due == 'held' then
  redis.call('ZADD', schedule.claimed, now + held_ms, id)
  return false
end
if is_resumed or is_emptied or unseen or due == 'now' then due_at = now end
redis.call('ZADD', schedule.due, due_at, id)
return due_at <= now
