-- Shared by the scripts that announce their changes by operational events, each with its
-- outboxes. Needs _events.

-- Whether the subscriptions have changed since announcements were matched with them.
local function is_outdated(announced)
  return #announced.events > 0
    and tonumber(redis.call('GET', announced.subscriptions_version) or '0') ~= announced.version
end

-- Appends those events whose change is in `happened` or is ''; puts them on their outboxes, wakes
-- these, and counts the events. Returns the number of woken outboxes.
local function announce(announced, happened, now)
  local entered, appended = 0, 0
  for _, event in ipairs(announced.events) do
    if event.when == '' or happened[event.when] then
      local position = append_event(announced.log, {
        type = event.type, integration = event.integration_id, course = '', suffix = event.suffix,
        sequence = 0, previous = 0, facts = event.facts, body = '',
      })
      appended = appended + 1
      entered = entered + enter_outboxes(announced.outboxes, event.targets, position, event.order_key)
      redis.call('HINCRBY', announced.counters, 'events_total|' .. event.type, 1)
    end
  end
  if appended == 0 then return 0 end
  if entered ~= 0 then redis.call('HINCRBY', announced.totals, 'pending', entered) end
  redis.call('EXPIRE', announced.counters, COUNTERS_SECONDS)
  return wake_outboxes(announced.schedule, announced.outboxes, now)
end
