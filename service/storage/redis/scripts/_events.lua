-- Shared by the scripts that append events: event ids, the log, outboxes and waking them. Needs
-- _positions.

-- Appends one event; returns its position and the 26 characters of its id.
local function append_event(log, event)
  local position = redis.call('XADD', log, '*', 't', event.type, 'i', event.integration,
    'c', event.course, 'x', event.suffix, 's', event.sequence, 'p', event.previous,
    'm', event.facts, 'b', event.body)
  return position, sort_key(position) .. event.suffix
end

-- Puts an event on the outboxes that `targets` names ("2f,5t": index of the outbox, rendering);
-- returns their number.
local function enter_outboxes(outboxes, targets, position, order_key)
  local entered = 0
  for index, rendering in string.gmatch(targets, '(%d+)(%a)') do
    local outbox = outboxes[tonumber(index)]
    redis.call('XADD', outbox.key, position, 'k', order_key, 'r', rendering)
    outbox.entered = true
    entered = entered + 1
  end
  return entered
end

-- Makes the outboxes with new entries due now, unless a worker holds their lease or they are not
-- active; returns their number.
local function wake_outboxes(schedule, outboxes, now)
  local woken = 0
  for _, outbox in ipairs(outboxes) do
    if outbox.entered and outbox.wakeable and not redis.call('ZSCORE', schedule.claimed, outbox.id) then
      redis.call('ZADD', schedule.due, 'LT', now, outbox.id)
      woken = woken + 1
    end
  end
  return woken
end
