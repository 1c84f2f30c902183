-- Shared by the scripts that remove entries from a queue of an outbox. Needs _positions.

-- The log position of a head's event; a replayed entry has its own position.
local function event_position_of(head)
  return string.match(head, '^%S+ %d+ %d+ %a (%S+)') or string.match(head, '^%S+')
end

-- Stores that a course's head has failed, and its next attempt.
local function note_failing(queue, order_key, head, due)
  local before = redis.call('HGET', queue.failing, order_key)
  redis.call('ZADD', queue.retries, due, order_key)
  redis.call('HSET', queue.failing, order_key, head)
  local sorted = sort_key(event_position_of(head))
  if before then redis.call('ZREM', queue.retrying, sort_key(event_position_of(before))) end
  redis.call('ZADD', queue.retrying, 0, sorted)
end

-- Removes the failure of a course's head, if the head is the entry at `place`; returns its number
-- of counted attempts, nil if the head is another entry or none.
local function forget_failing(queue, order_key, place)
  local head = redis.call('HGET', queue.failing, order_key)
  if not head then return nil end
  local failed, attempts = string.match(head, '^(%S+) (%d+)')
  if failed ~= place then return nil end
  redis.call('HDEL', queue.failing, order_key)
  redis.call('ZREM', queue.retries, order_key)
  redis.call('ZREM', queue.retrying, sort_key(event_position_of(head)))
  return attempts
end
