-- Shared by the scripts that take entries off a queue of an outbox.

-- Forgets that a course's head has failed, if that is the entry at `place`; returns how many
-- attempts of it counted, nil if it is another or none.
local function forget_failing(queue, order_key, place)
  local head = redis.call('HGET', queue.failing, order_key)
  if not head then return nil end
  local failed, attempts = string.match(head, '^(%S+) (%d+)')
  if failed ~= place then return nil end
  redis.call('HDEL', queue.failing, order_key)
  redis.call('ZREM', queue.retries, order_key)
  return attempts
end
