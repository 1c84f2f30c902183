-- Shared by the scripts that take entries off a queue of an outbox. Needs _positions.

-- The position in the log of the event that a head is of; what is replayed has one of its own.
local function event_position_of(head)
  return string.match(head, '^%S+ %d+ %d+ %a (%S+)') or string.match(head, '^%S+')
end

-- Notes that a course's head has failed, and when it is tried again.
local function note_failing(queue, order_key, head, due)
  local before = redis.call('HGET', queue.failing, order_key)
  redis.call('ZADD', queue.retries, due, order_key)
  redis.call('HSET', queue.failing, order_key, head)
  local sorted = sort_key(event_position_of(head))
  if before then redis.call('ZREM', queue.retrying, sort_key(event_position_of(before))) end
  redis.call('ZADD', queue.retrying, 0, sorted)
end

-- Forgets that a course's head has failed, if that is the entry at `place`; returns how many
-- attempts of it counted, nil if it is another or none.
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
