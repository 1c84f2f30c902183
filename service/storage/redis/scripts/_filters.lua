-- Shared by the scripts that list registrations by a filter.

-- How the UTF-8 begins of characters that are compared as if they were ASCII: ß, İ, ŉ, ſ, ǰ, ẖ to
-- ẞ, the Kelvin sign, and ligatures from ﬀ on. Redis leaves records with them to Python.
local LIKE_ASCII = {
  '\195\159', '\196\176', '\197\137', '\197\191', '\199\176', '\225\186', '\226\132', '\239\172',
}

-- Whether a record may contain a text of ASCII in lower case.
local function may_contain(record, text)
  if not text or string.find(string.lower(record), text, 1, true) then return true end
  for _, start in ipairs(LIKE_ASCII) do
    if string.find(record, start, 1, true) then return true end
  end
  return false
end

-- Whether a state is among the wanted ones; none means any.
local function is_among(states, state)
  for _, one in ipairs(states) do
    if one == state then return true end
  end
  return #states == 0
end

-- The state of the subscription with this outbox; `state_of` in domain/delivery/subscription.py
-- computes the same.
local function subscription_state(outbox_state)
  local disabled, paused, parked =
    unpack(redis.call('HMGET', outbox_state, 'disabled', 'paused', 'parked'))
  return disabled and 'disabled' or paused and 'paused' or parked and 'parked' or 'active'
end

-- Whether the record of a subscription may match a filter.
local function may_match(filter, record, outbox_state)
  return may_contain(record, filter.text)
    and (#filter.states == 0 or is_among(filter.states, subscription_state(outbox_state)))
end
