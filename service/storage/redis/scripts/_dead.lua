-- Shared by the scripts that list dead deliveries, or remove them from the list.

-- Lists a delivery as dead; returns 1 if it was not listed before, else 0. `sorted` is
-- the sort key of its position.
local function list_dead(dead, sorted, now, attempts, rendering, order_key, reason)
  redis.call('HSET', dead.facts, sorted,
    string.format('%.0f %s %s %s %s', now, attempts, rendering, order_key, reason))
  return redis.call('ZADD', dead.listed, 0, sorted)
end

-- Removes a delivery from the list; returns 1 if it was listed, else 0.
local function unlist_dead(dead, sorted)
  redis.call('HDEL', dead.facts, sorted)
  return redis.call('ZREM', dead.listed, sorted)
end

-- Counts a dead delivery for the next announcement. Events about subscriptions are left out,
-- because two subscriptions that report each other's failures would never stop.
local function note_dead(dead, position, order_key, reason)
  if string.sub(order_key, 1, 4) == 'sub_' then return end
  local unannounced = dead.unannounced
  redis.call('HINCRBY', unannounced, 'for:' .. reason, 1)
  local ms = tonumber(string.match(position, '^%d+'))
  local known = redis.call('HMGET', unannounced, 'first', 'last')
  if not known[1] or ms < tonumber(known[1]) then redis.call('HSET', unannounced, 'first', ms) end
  if not known[2] or ms > tonumber(known[2]) then redis.call('HSET', unannounced, 'last', ms) end
end
